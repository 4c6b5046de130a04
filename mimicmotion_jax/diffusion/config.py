"""Options of sampling: steps, guidance, windows and their fusion, decoding chunks, conditions of the model."""

from typing import Annotated

from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.diffusion.fusion import FusionMode, WindowPlan, make_plan


@config_dataclass
class SamplingConfig:
    """How a video is sampled; the defaults are the official release's, but for the fusion, which is the paper's."""

    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance_scale: Annotated[float, Field(ge=1, le=100)] = 2.0  # 1 turns guidance off and halves the work
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    fusion: FusionMode = "progressive"
    window_size: Annotated[int, Field(ge=2, le=1024)] | None = None  # None: the checkpoint's own
    window_overlap: Annotated[int, Field(ge=0, lt=1024)] | None = None  # None: 6, or less for a small window
    group_size: Annotated[int, Field(ge=1, le=1024)] = 1  # windows that one device predicts together
    periodic_noise: bool = False  # repeat the noise of one window along time, as the official release does
    decode_chunk_size: Annotated[int, Field(ge=1, le=1024)] = 8
    decode_overlap: Annotated[int, Field(ge=0, lt=1024)] | None = None  # None: a quarter of the chunk; official: 0
    fps: Annotated[int, Field(ge=1, le=1000)] = 7  # a condition of the model, not the rate of the output
    motion_bucket_id: Annotated[int, Field(ge=0, le=1023)] = 127
    noise_aug_strength: Annotated[float, Field(ge=0, le=10)] = 0.0

    def __post_init__(self) -> None:
        if self.decode_overlap is not None and self.decode_overlap >= self.decode_chunk_size:
            raise ValueError(
                f"decode_overlap ({self.decode_overlap}) must be smaller than decode_chunk_size "
                f"({self.decode_chunk_size})"
            )

    @property
    def chunk_overlap(self) -> int:
        """Frames that neighbouring decoding chunks share."""
        if self.decode_overlap is not None:
            return self.decode_overlap
        return 0 if self.fusion == "official" else self.decode_chunk_size // 4

    def plan(self, num_frames: int, checkpoint_window: int) -> WindowPlan:
        """The window plan for a video of `num_frames`, the reference slot included; shorter ones get a window's."""
        window = self.window_size or checkpoint_window
        overlap = min(6, (window - 1) // 2) if self.window_overlap is None else self.window_overlap
        return make_plan(max(num_frames, window), window, overlap, self.fusion)
