"""MimicMotion in JAX: a reference image and a driving motion in, a video of that person moving that way out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimicmotion_jax.inference.output import Video, VideoStream
    from mimicmotion_jax.pipeline import MimicMotionPipeline
    from mimicmotion_jax.pose.detect import detect_video, load_detector
    from mimicmotion_jax.pose.keypoints import Keypoints
    from mimicmotion_jax.runtime.errors import InputError

__all__ = [
    "InputError",
    "Keypoints",
    "MimicMotionPipeline",
    "Video",
    "VideoStream",
    "__version__",
    "detect_video",
    "load_detector",
]
__version__ = "0.2.0"

_MODULES = {
    "InputError": "runtime.errors",
    "Keypoints": "pose.keypoints",
    "MimicMotionPipeline": "pipeline",
    "Video": "inference.output",
    "VideoStream": "inference.output",
    "detect_video": "pose.detect",
    "load_detector": "pose.detect",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: jax takes seconds, which `mimicmotion --help` need not wait for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
