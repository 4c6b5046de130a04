"""Options of the synthetic world."""

from typing import Annotated, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass

Split = Literal["train", "test"]
Movement = Literal["facing", "free"]
Cast = Literal["people", "cartoons"]
Side = Annotated[int, Field(ge=64, multiple_of=2)]  # even, as the stored video's must be


@config_dataclass
class WorldConfig:
    """Options of all scenes of a world."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of people, motions and backgrounds."""
    width: Side = 1024
    """Width in pixels, even."""
    height: Side = 576
    """Height in pixels, even."""
    num_frames: Annotated[int, Field(ge=1)] = 48
    """Number of frames of a scene."""
    fps: Annotated[float, Field(gt=0, le=240)] = 15.0
    """Frames per second."""
    split: Split | None = None
    """Draw from train or test, which share no people, motions or backgrounds; null: train, but test for a test set."""
    movement: Movement = "facing"
    """facing: people always face the viewer; free: they also turn their backs, and hair and skirts swing."""
    cast: Cast = "people"
    """people, or cartoons for test sets: eight with large heads, short legs or paws, who face the viewer."""
