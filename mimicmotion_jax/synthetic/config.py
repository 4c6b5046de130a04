"""Which scenes of the synthetic world."""

from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass

Split = Literal["train", "test"]
Side = Annotated[int, Field(ge=64, multiple_of=2)]  # even, as the stored video's must be


@config_dataclass
class WorldConfig:
    """A world of scenes, beside their number."""

    seed: Annotated[int, Field(ge=0)] = 0
    width: Side = 1024  # pixels
    height: Side = 576
    num_frames: Annotated[int, Field(ge=1)] = 48
    fps: Annotated[float, Field(gt=0, le=240)] = 15.0
    split: Split | None = None  # who appears, moves how and where; null: train, or test for a folder of test sequences
