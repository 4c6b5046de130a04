"""The demonstration: `mimicmotion sample` without inputs, a model of the package on drawn people it has never seen."""

from pathlib import Path
from typing import Any

from mimicmotion_jax.checkpoint import PACKAGED
from mimicmotion_jax.cli.job_lists import write_video
from mimicmotion_jax.inference.options import GenerateConfig, load_options
from mimicmotion_jax.inference.output import check_outputs
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.source import detect
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.image import target_size

WEIGHTS = PACKAGED / "small"
DEFAULTS = {"side_by_side": True, "num_frames": 36, "align": "limb"}
_SIZE = (192, 256)  # width, height: the small model's
# There is no file to cut or to look for people in.
_WITHOUT_EFFECT = (
    *("stride", "start", "motion_size", "motion_fps", "motion_kind", "tolerate_truncation", "detector"),
    *("person_model", "pose_model", "person", "reference_person", "audio", "batch_size"),
)
_FPS = 15.0
# Odd numbers are those of the test split: nobody and nothing here occurs in training.
_REFERENCE = {"character": 21, "motion": 3, "background": 21, "framing": "half"}
_DRIVER = {"character": 7, "motion": 7, "background": 9, "framing": "half"}


def demo_options(checkpoint: Path, path: Path | None, overrides: list[str]) -> GenerateConfig:
    """Options of the demonstration with a model of the package: `DEFAULTS` below what is given.

    Raises:
        InputError: an option that is wrong or has no effect here.
    """
    config, untouched = load_options(checkpoint, path, overrides, defaults=DEFAULTS), GenerateConfig()
    for name in _WITHOUT_EFFECT:
        if getattr(config, name) != getattr(untouched, name):
            raise InputError(
                f"{name} has no effect on the demonstration, whose motion is made and not read; leave it out, or give "
                "--checkpoint, --image and --motion."
            )
    return config


def run_demo(pipeline: MimicMotionPipeline, output: Path, config: GenerateConfig) -> None:
    """Generate a short video: a figure of the synthetic world moves as another one of other proportions does.

    Args:
        pipeline: of a model of the package.
        output: where the video goes.
        config: from `demo_options`.

    Raises:
        InputError: an output that cannot be written, or a size that the model cannot have.
    """
    check_outputs(output, config)
    image, pose, motion = demo_inputs(pipeline, config)
    write_video(pipeline, output, config, image, motion, pose)


def demo_inputs(pipeline: MimicMotionPipeline, config: GenerateConfig) -> tuple[Any, Keypoints, Keypoints]:
    """Render a reference image [H, W, 3] and its pose, and the detected motion of somebody else."""
    size = target_size(_SIZE[1], _SIZE[0], config.resolution, config.shape, pipeline.config.size_multiple)
    height, width = size
    look = render(Scene(**_REFERENCE, width=width, height=height, num_frames=1, fps=_FPS))
    driver = Scene(
        **_DRIVER, width=width, height=height, num_frames=config.num_frames or DEFAULTS["num_frames"], fps=_FPS
    )
    return look.frames[0], look.keypoints, detect(driver, render(driver).keypoints)
