"""Everything that `train.py` lets you choose; configs/ holds complete examples."""

from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.training.objective import ObjectiveConfig


@config_dataclass
class OptimizerConfig:
    """AdamW with linear warm-up (paper, section 4.1); weight decay acts on kernels only."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    decay: Literal["none", "cosine"] = "none"  # after the warm-up; cosine reaches zero at the last step
    b1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    b2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip_norm: Annotated[float, Field(gt=0)] = 1.0  # of the whole gradient
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = 0.9999  # with warm-up; null turns it off


@config_dataclass
class MeshConfig:
    """How devices are laid out (see `sharding`); null takes what the others leave."""

    data: Annotated[int, Field(ge=1)] | None = None
    fsdp: Annotated[int, Field(ge=1)] | None = None
    frames: Annotated[int, Field(ge=1)] = 1

    @property
    def given_devices(self) -> int:
        """As many as the sizes that are given ask for."""
        return (self.data or 1) * (self.fsdp or 1) * self.frames


@config_dataclass
class TrainConfig:
    """A training run; the defaults are the paper's recipe."""

    output: str = "outputs/train"  # local or gs://; a run that is there already is continued
    checkpoint: str | None = None  # converted SVD or MimicMotion to start from; null starts from scratch
    encoders: str | None = None  # from scratch: a checkpoint to take VAE and CLIP from; null: random ones
    model: Literal["full", "tiny"] | ModelConfig = "full"  # sizes, from scratch
    # Regular expressions over names of parameters.
    trainable: Annotated[tuple[str, ...], Field(min_length=1)] = ("^unet", "^pose_net")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    steps: Annotated[int, Field(ge=1)] = 10_000
    batch_size: Annotated[int, Field(ge=1)] = 8  # samples per step, over all devices
    accumulation: Annotated[int, Field(ge=1)] = 1  # into how many parts a step's batch is cut to save memory
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the computation; parameters are kept in float32
    remat: bool = True
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    log_every: Annotated[int, Field(ge=1)] = 10
    save_every: Annotated[int, Field(ge=1)] = 500
    keep: Annotated[int, Field(ge=1)] = 2  # newest checkpoints
    keep_every: Annotated[int, Field(ge=1)] | None = None  # checkpoints at multiples of this are kept for good
    sample_every: Annotated[int, Field(ge=1)] | None = 1000  # null: no sample videos
    num_samples: Annotated[int, Field(ge=1)] = 2
    sampling: SamplingConfig = SamplingConfig()
    export_dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the result, OUTPUT/model

    def __post_init__(self) -> None:
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
