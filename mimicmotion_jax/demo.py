"""What `python sample.py` does without arguments: the small model that comes with us, on people it has never seen."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mimicmotion_jax.data.synthetic.source import detect
from mimicmotion_jax.data.synthetic.world import Scene, render
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.generate import Prepared, generate, load_options, load_pipeline
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.video.encode import check_writable

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "small"
_DEFAULTS = ("side_by_side=true", "max_frames=45", "align=limb")
_FPS = 15.0
# Odd numbers are those of the test split: nobody and nothing here occurs in training.
_REFERENCE = {"character": 21, "motion": 3, "background": 21, "framing": "half"}
_DRIVER = {"character": 7, "motion": 7, "background": 9, "framing": "half"}


def run_demo(output: Path, config_path: Path | None = None, overrides: Sequence[str] = ()) -> None:
    """Generate a short video: a figure of the synthetic world moves as another one of other proportions does.

    Raises:
        InputError: no weights there, an option that is wrong, or an output that cannot be written.
    """
    if not WEIGHTS.is_dir():
        raise InputError(
            f"the small model is not at {WEIGHTS}; run from a clone of the repository, or give --checkpoint, --image "
            "and --motion (python sample.py --help shows how)."
        )
    config = load_options(WEIGHTS, config_path, (*_DEFAULTS, *overrides))
    check_writable(output)
    logger.info(
        "No --checkpoint was given: this is the small model that comes with the code, which knows drawn people only. "
        "python sample.py --help tells how to use real weights."
    )
    pipeline = load_pipeline(WEIGHTS, config)
    width, height = config.size or (96, 128)
    look = render(Scene(**_REFERENCE, width=width, height=height, num_frames=1, fps=_FPS))
    driver = Scene(**_DRIVER, width=width, height=height, num_frames=config.max_frames or 45, fps=_FPS)
    motion, report = align(detect(driver, render(driver).keypoints), look.keypoints, config.align)
    logger.info("%s", report.summary())
    keypoints = Keypoints.concatenate([look.keypoints, motion])
    generate(pipeline, [Prepared(image=look.frames[0], keypoints=keypoints, output=output, seed=config.seed)], config)
