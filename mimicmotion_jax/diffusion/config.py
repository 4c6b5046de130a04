"""Options of sampling: steps, guidance, windows and their fusion, decoding chunks, conditions of the model."""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.diffusion.fusion import FusionMode, WindowPlan, make_plan
from mimicmotion_jax.diffusion.schedules import ScheduleName, make_sigmas
from mimicmotion_jax.diffusion.solvers import SolverName
from mimicmotion_jax.runtime.seeds import Seed


@config_dataclass
class SamplingConfig:
    """Sampling of a video; the defaults are the official release's, except for the fusion, which is the paper's."""

    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Number of denoising steps."""
    guidance_scale: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Classifier-free guidance scale; 1 turns guidance off and halves the work."""
    sampler: SolverName = "euler"
    """Solver: euler (the official release's), heun (two predictions a step), dpmpp_2m (DPM-Solver++, for few steps),
    consistency (for distilled students)."""
    schedule: ScheduleName | tuple[float, ...] = "karras"
    """Noise levels: karras (SVD's), ays (Align Your Steps, for about ten), exponential, or a list that descends to 0,
    which sets the number of steps."""
    min_guidance_scale: Annotated[float, Field(ge=1, le=100)] | None = None
    """Guidance of the first frame, from where it changes evenly to the last one's; null: guidance_scale."""
    max_guidance_scale: Annotated[float, Field(ge=1, le=100)] | None = None
    """Guidance of the last frame; null: guidance_scale."""
    guidance_interval: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """Lowest and highest noise level sigma with guidance; steps outside take half the work. null: all."""
    cache_interval: Annotated[int, Field(ge=1, le=1000)] = 1
    """Compute the whole UNet every n-th step only, and its last layers between (DeepCache); 1: in every step."""
    cache_depth: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of last layers of the UNet that are computed in every step, of 12 in the full model; for cache_interval
    above 1."""
    pose_strength: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Factor of the pose's features."""
    pose_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the steps after which the pose has an effect."""
    pose_end: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Part of the steps after which the pose has no effect any more."""
    image_strength: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Factor of the reference image's CLIP embedding; its latents stay as they are."""
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
        if self.cache_interval > 1 and self.sampler == "heun":
            raise ValueError("cache_interval: heun predicts twice a step; take sampler=euler or dpmpp_2m with it")
        if self.cache_interval > self.num_steps:
            raise ValueError(f"cache_interval ({self.cache_interval}) must not be above the steps ({self.num_steps})")
        if self.pose_start > self.pose_end:
            raise ValueError(f"pose_start ({self.pose_start:g}) must not be larger than pose_end ({self.pose_end:g})")
        low, high = self.guidance_interval or (0, np.inf)
        if low > high:
            raise ValueError(
                f"guidance_interval: its lowest noise level ({low:g}) must not be above its highest ({high:g})"
            )
        if self.guided and not self.guided_steps.any():
            raise ValueError(
                f"guidance_interval: none of the steps' noise levels, {self.sigmas[0]:g} to {self.sigmas[-2]:g}, lies "
                f"in {list(self.guidance_interval or ())}; guidance_scale=1 turns guidance off"
            )

    @property
    def sigmas(self) -> Float[np.ndarray, " levels"]:
        """Noise levels, one more than steps; the last is 0."""
        return make_sigmas(self.schedule, self.num_inference_steps)

    @property
    def num_steps(self) -> int:
        """Number of denoising steps."""
        return len(self.sigmas) - 1

    @property
    def guided(self) -> bool:
        """True if any frame has guidance at any step."""
        return max(self._guidance) > 1

    @property
    def guided_steps(self) -> Bool[np.ndarray, " steps"]:
        """True for steps with guidance."""
        low, high = self.guidance_interval or (0, np.inf)
        return self.guided & (low <= self.sigmas[:-1]) & (self.sigmas[:-1] <= high)

    @property
    def whole_steps(self) -> Bool[np.ndarray, " steps"]:
        """True for steps that compute the whole UNet: every `cache_interval`-th, counted anew where guidance begins or
        ends."""
        guided, whole = self.guided_steps, np.ones(self.num_steps, bool)
        since = 0
        for step in range(1, self.num_steps):
            since = since + 1 if guided[step] == guided[step - 1] else 0
            whole[step] = since % self.cache_interval == 0
        return whole

    @property
    def unet_calls(self) -> int:
        """Number of predictions for one window, those of both branches of guidance counted."""
        evaluations = np.full(self.num_steps, 2 if self.sampler == "heun" else 1)
        evaluations[-1] = 1
        return int(np.sum(evaluations * (1 + self.guided_steps)))

    @property
    def pose_strengths(self) -> Float[np.ndarray, " steps"]:
        """Factor of the pose's features at each step."""
        part = np.arange(self.num_steps) / self.num_steps
        return np.where((self.pose_start <= part) & (part < self.pose_end), self.pose_strength, 0).astype(np.float32)

    def guidance_scales(self, num_frames: int) -> Float[np.ndarray, " f"]:
        """Guidance scale of each frame, that of the reference first (diffusers' `StableVideoDiffusionPipeline`)."""
        return np.linspace(*self._guidance, num_frames).astype(np.float32)

    @property
    def _guidance(self) -> tuple[float, float]:
        """Guidance scale of the first and of the last frame."""
        first, last = self.min_guidance_scale, self.max_guidance_scale
        return self.guidance_scale if first is None else first, self.guidance_scale if last is None else last

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
