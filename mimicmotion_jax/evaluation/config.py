"""Options of `evaluate.py`: how videos are generated. How they are scored is the protocol's business."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mimicmotion_jax.config import config_dataclass, to_dict, values_of
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference import options
from mimicmotion_jax.pose.options import DetectorOptions, DrawOptions, PersonChoice

# What changes speed, not results; and what has a hash of its own.
_NOT_RESULTS = ("batch_size", "withhold_poses", "detector", "person_model", "pose_model")


@config_dataclass
class EvaluateConfig(DrawOptions, DetectorOptions, SamplingConfig):
    """Everything that `evaluate.py` lets you choose, beside the files and the protocol.

    The detector is for sequences without NAME.npz.
    """

    height: Annotated[int, Field(ge=1)] | None = None  # of the generated videos; None: as the protocol says
    width: Annotated[int, Field(ge=1)] | None = None
    num_frames: Annotated[int, Field(ge=1)] | None = None  # per sequence, without the reference
    person: PersonChoice = "largest"
    gaps: Literal["interpolate", "dark"] = "interpolate"
    withhold_poses: bool = False  # generate everything a second time with black pose pictures, as a baseline
    batch_size: Annotated[int, Field(ge=1)] = 1  # sequences of equal shape that are generated together

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together; give both, or neither")

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the generated videos, where they are given."""
        return None if self.width is None or self.height is None else (self.width, self.height)

    @property
    def detection(self) -> dict[str, Any]:
        """What detected poses depend on."""
        return values_of(DetectorOptions, self)

    @property
    def result_options(self) -> dict[str, Any]:
        """The options on which generated videos depend, given their poses."""
        return {name: value for name, value in to_dict(self).items() if name not in _NOT_RESULTS}

    def pipeline_options(self) -> options.PipelineOptions:
        """The same for the pipeline."""
        return options.PipelineOptions(**values_of(SamplingConfig, self), **values_of(DrawOptions, self))


def load_options(
    checkpoint: Path | None = None, path: Path | None = None, overrides: Sequence[str] = ()
) -> EvaluateConfig:
    """As `generation.options.load_options`, with the same errors."""
    # The short side is the protocol's business.
    return options.load_options(checkpoint, path, overrides, EvaluateConfig, ignored=("resolution",))
