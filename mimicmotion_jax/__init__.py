"""MimicMotion in JAX: a reference image and a driving motion in, a video of that person moving that way out."""

from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.pipeline import MimicMotionPipeline, PipelineOutput
from mimicmotion_jax.runtime.errors import InputError

__all__ = ["InputError", "MimicMotionPipeline", "PipelineOutput", "SamplingConfig", "__version__"]
__version__ = "0.2.0"
