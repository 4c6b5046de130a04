"""Options of sampling: steps, guidance, windows and their fusion, decoding chunks, conditions of the model."""

from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.diffusion.fusion import FusionMode, WindowPlan, make_plan
from mimicmotion_jax.runtime.seeds import Seed


@config_dataclass
class SamplingConfig:
    """Sampling of a video; the defaults are the official release's, except for the fusion, which is the paper's."""

    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Number of denoising steps."""
    guidance_scale: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Classifier-free guidance scale; 1 turns guidance off and halves the work."""
    seed: Seed = 0
    """Seed of the noise, below 2^64."""
    fusion: FusionMode = "progressive"
    """Fusion of overlapping windows: progressive (the paper's Algorithm 1), official (the released code), uniform
    (MultiDiffusion) or none."""
    window_size: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Number of frames that are denoised together; null: the number that the checkpoint was trained with."""
    window_overlap: Annotated[int, Field(ge=0, lt=1024)] | None = None
    """Number of frames that neighbouring windows share; null: 6, or less for small windows."""
    group_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Number of windows that one device predicts together; more is faster and needs more memory."""
    memory: Literal["auto", "fast", "low"] = "auto"
    """Ways to save a device's memory, results alike: none (fast); guidance's branches one after the other and idle
    networks in the host's memory (low); auto: as little of it as the device needs."""
    periodic_noise: bool = False
    """Repeat the noise of one window along time, as the official release does."""
    decode_chunk_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Number of frames that the VAE decodes together."""
    decode_overlap: Annotated[int, Field(ge=0, lt=1024)] | None = None
    """Number of frames that neighbouring decoding chunks share and blend; null: a quarter of the chunk, or 0 with
    fusion=official."""
    fps: Annotated[int, Field(ge=1, le=1000)] = 7
    """Frame rate that the model is conditioned on, not the output's."""
    motion_bucket_id: Annotated[int, Field(ge=0, le=1023)] = 127
    """Amount of motion that the model is conditioned on."""
    noise_aug_strength: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Strength of the noise added to the reference image before it is encoded."""

    def __post_init__(self) -> None:
        if self.decode_overlap is not None and self.decode_overlap >= self.decode_chunk_size:
            raise ValueError(
                f"decode_overlap ({self.decode_overlap}) must be smaller than decode_chunk_size "
                f"({self.decode_chunk_size})"
            )

    @property
    def chunk_overlap(self) -> int:
        """Number of frames that neighbouring decoding chunks share."""
        if self.decode_overlap is not None:
            return self.decode_overlap
        return 0 if self.fusion == "official" else self.decode_chunk_size // 4

    def plan(self, num_frames: int, checkpoint_window: int) -> WindowPlan:
        """Plan the windows of a video of `num_frames`, reference slot included; a shorter one gets one whole window."""
        window = self.window_size or checkpoint_window
        overlap = min(6, (window - 1) // 2) if self.window_overlap is None else self.window_overlap
        return make_plan(max(num_frames, window), window, overlap, self.fusion)
