"""Options of `mimicmotion train` and the part of them that `mimicmotion train-vae` shares; configs/ has examples."""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.seeds import Seed
from mimicmotion_jax.training.distillation import DistillationConfig
from mimicmotion_jax.training.objective import ObjectiveConfig

CONDITIONS = ("fps", "motion_bucket_id", "noise_aug_strength")
"""Numbers that the UNet is conditioned on: options of the objective in training, of the sampler afterwards."""


@config_dataclass
class OptimizerConfig:
    """AdamW with linear warm-up (paper, section 4.1); weight decay acts on kernels only."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Learning rate after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Number of steps over which the learning rate rises linearly."""
    decay: Literal["none", "cosine"] = "none"
    """Learning rate after the warm-up: constant, or a cosine that reaches zero at the last step."""
    b1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of Adam's first moments."""
    b2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of Adam's second moments."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Adam's epsilon."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay, on kernels only."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = 0.9999
    """Decay of the moving average of the parameters, after a warm-up; null keeps no average."""


@config_dataclass
class MeshConfig:
    """Mesh of devices (see `sharding`); null takes the devices that the other axes leave."""

    data: Annotated[int, Field(ge=1)] | None = None
    """Devices over which samples are split and parameters replicated."""
    fsdp: Annotated[int, Field(ge=1)] | None = None
    """Devices over which samples and parameters are split."""
    frames: Annotated[int, Field(ge=1)] = 1
    """Devices per sample."""

    @property
    def given_devices(self) -> int:
        """Number of devices that the given sizes need."""
        return (self.data or 1) * (self.fsdp or 1) * self.frames


@config_dataclass
class LoraConfig:
    """Low-rank adapters of the UNet's linear layers (LoRA) in place of their kernels."""

    rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Rank of the adapters; null trains whole parameters."""
    alpha: Annotated[float, Field(gt=0, le=1024)] = 16.0
    """An adapter's output is multiplied by alpha / rank."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (
        r"attn1\.to_(q|k|v|out)$",
        r"attn2\.to_(v|out)$",
        r"\.(ff|ff_in)\.proj_(in|out)$",
    )
    """Regular expressions; linear layers of the UNet whose names match one get an adapter."""
    base_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Format in which the frozen weights of the base are kept."""


@config_dataclass
class ReferenceClipConfig(DataConfig):
    """Clips laid out as the sampler lays out a window: frame 0 is the reference image with its own pose."""

    reference_slot: bool = True
    """Frame 0 of a clip is the reference with its own pose, as in every window that is sampled."""


@config_dataclass
class RunConfig:
    """Options that every kind of training has."""

    output: str = "outputs/train"
    """Folder of the run, local or gs://; an unfinished run in it is continued."""
    seed: Seed = 0
    """Seed of everything random, below 2^64."""
    steps: Annotated[int, Field(ge=1)] = 10_000
    """Number of training steps."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Clips per step, over all devices."""
    data: DataConfig = DataConfig()
    """Dataset and clips."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between lines of metrics."""
    save_every: Annotated[int, Field(ge=1)] = 500
    """Steps between checkpoints."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Number of newest checkpoints that are kept."""
    keep_every: Annotated[int, Field(ge=1)] | None = None
    """Checkpoints at multiples of this step are kept for good."""
    sample_every: Annotated[int, Field(ge=1)] | None = 1000
    """Steps between samples; null makes none."""


@config_dataclass
class TrainConfig(RunConfig):
    """Training of UNet and PoseNet; the defaults are the paper's recipe."""

    checkpoint: str | None = None
    """Converted SVD or MimicMotion to start from, local or gs://; null starts from scratch."""
    encoders: str | None = None
    """Checkpoint to take VAE and CLIP from, if training starts from scratch; null initialises them at random."""
    model: Literal["full", "tiny"] | ModelConfig = "full"
    """Sizes, if training starts from scratch: full, tiny, or as in a checkpoint's config.json."""
    trainable: tuple[str, ...] = ("^unet", "^pose_net")
    """Regular expressions; parameters whose names match one are trained. With lora.rank: of PoseNet alone, or []."""
    lora: LoraConfig = LoraConfig()
    """Adapters of the UNet."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Number of parts that a step's batch is split into, to save memory."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Format of the computation; parameters and optimizer state are float32."""
    remat: bool = True
    """Recompute the inside of each block in the backward pass, to save memory."""
    mesh: MeshConfig = MeshConfig()
    """Mesh of devices; null takes the devices that the other axes leave."""
    data: ReferenceClipConfig = ReferenceClipConfig()
    """Dataset and clips."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """Training objective."""
    distillation: DistillationConfig | None = None
    """Distil `checkpoint` into a student for few steps, instead of training it."""
    num_samples: Annotated[int, Field(ge=1)] = 2
    """Number of sample videos."""
    sampling: SamplingConfig = SamplingConfig()
    """Sampling of the sample videos and, by default, of the result."""
    export_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Format of the result, OUTPUT/model."""

    def __post_init__(self) -> None:
        if self.lora.rank is None and not self.trainable:
            raise ValueError("trainable names no parameter: give a pattern, or adapters with lora.rank=16")
        if self.data.num_frames < 2:
            raise ValueError(f"data.num_frames must be at least 2, not {self.data.num_frames}: a video has to move")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation})")
        if self.data.encodings and self.objective.noise_aug_strength > 0:
            raise ValueError(
                "noise augmentation acts on pixels, which stored encodings leave out: set "
                "objective.noise_aug_strength=0 or data.encodings=false"
            )
        if self.checkpoint is not None and self.encoders is not None:
            raise ValueError("the encoders come from the checkpoint already: leave encoders out")
        if self.distillation is not None and self.lora.rank is not None:
            raise ValueError("distillation trains whole parameters: leave lora.rank out")
        if self.distillation is not None and self.sampling.guided:
            raise ValueError("a student has its teacher's guidance in itself: set sampling.guidance_scale=1")
        for name in CONDITIONS:
            trained, sampled = getattr(self.objective, name), getattr(self.sampling, name)
            if sampled not in (trained, getattr(SamplingConfig(), name)):
                raise ValueError(
                    f"sampling.{name} ({sampled}) is not what the model is trained with: set objective.{name} instead"
                )

    @property
    def teacher(self) -> str | None:
        """Checkpoint of the teacher; None without distillation."""
        return None if self.distillation is None else self.distillation.teacher or self.checkpoint

    @property
    def trained_sampling(self) -> SamplingConfig:
        """Sampling options with the conditions that the model is trained with."""
        return dataclasses.replace(self.sampling, **{name: getattr(self.objective, name) for name in CONDITIONS})
