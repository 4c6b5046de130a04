"""MimicMotion in JAX: a reference image and a driving motion in, a video of that person moving that way out."""

from mimicmotion_jax.errors import InputError
from mimicmotion_jax.pipeline import MimicMotionPipeline, PipelineOutput, SamplingConfig

__all__ = ["InputError", "MimicMotionPipeline", "PipelineOutput", "SamplingConfig"]
