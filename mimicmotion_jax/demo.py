"""What `python sample.py` does without arguments: a complete small run on inputs and weights that it makes itself."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mimicmotion_jax.compilation import enable_compilation_cache
from mimicmotion_jax.config import load_config
from mimicmotion_jax.generate import GenerateConfig, Prepared, generate
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.demo import demo_motion, demo_reference
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.video.encode import check_writable

logger = logging.getLogger(__name__)

_DEFAULTS = (
    "size=[192, 320]",
    "num_inference_steps=8",
    "side_by_side=true",
    "max_frames=30",
    "align=limb",
    "antialias=true",
)
_FPS = 15


def run_demo(output: Path, config_path: Path | None = None, overrides: Sequence[str] = ()) -> None:
    """Generate a short video with a small random model; it shows that everything runs, not what a trained one does.

    Raises:
        InputError: an option that is wrong, or an output that cannot be written.
    """
    config = load_config(GenerateConfig, config_path, (*_DEFAULTS, *overrides))
    check_writable(output)
    logger.warning(
        "No --checkpoint was given: this is a small model with RANDOM weights, so the result will be noise. It shows "
        "that every part runs here; python sample.py --help tells how to use real weights."
    )
    enable_compilation_cache()
    pipeline = MimicMotionPipeline.random(ModelConfig.tiny(), seed=config.seed)
    width, height = config.size
    picture, reference = demo_reference(width, height)
    motion, report = align(demo_motion(config.max_frames, _FPS, width, height), reference, config.align)
    logger.info("%s", report.summary())
    keypoints = Keypoints.concatenate([reference, motion])
    generate(pipeline, [Prepared(image=picture, keypoints=keypoints, output=output, seed=config.seed)], config)
