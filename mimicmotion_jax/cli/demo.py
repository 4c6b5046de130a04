"""What `python sample.py` does without arguments: the small model that comes with us, on people it has never seen."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mimicmotion_jax.checkpoint import read_config
from mimicmotion_jax.config import read_values
from mimicmotion_jax.inference.generate import generate, load_pipeline
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import GenerateConfig, load_options
from mimicmotion_jax.inference.outputs import check_outputs
from mimicmotion_jax.pipeline import DTypeName
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.select import fill_gaps
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.source import detect
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.image import target_size

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "small"
_DEFAULTS = {"side_by_side": "true", "max_frames": "45", "align": "limb"}
_SIZE = (96, 128)  # width, height: the small model's
# There is no file to cut or to look for people in, and one video.
_WITHOUT_EFFECT = (
    *("stride", "motion_size", "start", "detector", "person_model", "pose_model", "person", "reference_person"),
    *("audio", "batch_size"),
)
_FPS = 15.0
# Odd numbers are those of the test split: nobody and nothing here occurs in training.
_REFERENCE = {"character": 21, "motion": 3, "background": 21, "framing": "half"}
_DRIVER = {"character": 7, "motion": 7, "background": 9, "framing": "half"}


def run_demo(
    output: Path,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    dtype: DTypeName | None = None,
    num_devices: int | None = None,
) -> None:
    """Generate a short video: a figure of the synthetic world moves as another one of other proportions does.

    Args:
        output: where to.
        config_path: a YAML file of options.
        overrides: `key=value`.
        dtype: as `load_pipeline`.
        num_devices: as `load_pipeline`.

    Raises:
        InputError: no weights there, an option that is wrong or has no effect, or an output that cannot be written.
    """
    if not WEIGHTS.is_dir():
        raise InputError(
            f"the small model is not at {WEIGHTS}; run from a clone of the repository, or give --checkpoint, --image "
            "and --motion (python sample.py --help shows how)."
        )
    config = _load_options(config_path, overrides)
    aspect = config.size or config.aspect
    height, width = target_size(_SIZE[1], _SIZE[0], config.resolution, aspect, read_config(WEIGHTS).size_multiple)
    check_outputs(output, config)
    logger.info(
        "No --checkpoint was given: this is the small model that comes with the code, which knows drawn people only. "
        "python sample.py --help tells how to use real weights."
    )
    pipeline = load_pipeline(WEIGHTS, config, dtype, num_devices)
    look = render(Scene(**_REFERENCE, width=width, height=height, num_frames=1, fps=_FPS))
    num_frames = config.max_frames or int(_DEFAULTS["max_frames"])
    driver = Scene(**_DRIVER, width=width, height=height, num_frames=num_frames, fps=_FPS)
    motion = fill_gaps(detect(driver, render(driver).keypoints), config.gaps)
    motion, report = align(motion, look.keypoints, config.align, config.smooth)
    logger.info("%s", report.summary())
    keypoints = Keypoints.concatenate([look.keypoints, motion])
    generate(pipeline, [Prepared(image=look.frames[0], keypoints=keypoints, output=output, seed=config.seed)], config)


def _load_options(path: Path | None, overrides: Sequence[str]) -> GenerateConfig:
    """As `load_options`, with what is not given as the demonstration has it."""
    given = read_values(path, overrides)
    defaults = [f"{key}={value}" for key, value in _DEFAULTS.items() if key not in given]
    config, untouched = load_options(WEIGHTS, path, [*defaults, *overrides]), GenerateConfig()
    for name in _WITHOUT_EFFECT:
        if getattr(config, name) != getattr(untouched, name):
            raise InputError(
                f"{name} has no effect on the demonstration, whose motion is made and not read; leave it out, or give "
                "--checkpoint, --image and --motion."
            )
    return config
