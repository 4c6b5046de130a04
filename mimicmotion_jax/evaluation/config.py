"""Options of `mimicmotion evaluate`: how videos are generated. The protocol decides how they are scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mimicmotion_jax.checkpoint import read_sampling, resolve
from mimicmotion_jax.config import build_config, config_dataclass, read_values, to_dict
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.options import PresetName, merge_defaults
from mimicmotion_jax.pose.options import DetectorOptions, DrawOptions, PersonChoice

# Options that do not change the videos, given their poses.
_NOT_RESULTS = ("preset", "batch_size", "withhold_poses", "detector", "person_model", "pose_model")


@config_dataclass
class EvaluateConfig(DrawOptions, DetectorOptions, SamplingConfig):
    """Options of `mimicmotion evaluate` besides files and protocol.

    The detector is used for sequences without NAME.npz.
    """

    preset: PresetName | None = None
    """Steps, noise levels and guidance together, as in `mimicmotion sample`; other options that are given win."""
    height: Annotated[int, Field(ge=1)] | None = None
    """Height of the generated videos, in pixels; null: the protocol's."""
    width: Annotated[int, Field(ge=1)] | None = None
    """Width of the generated videos, in pixels; give both or neither."""
    num_frames: Annotated[int, Field(ge=1)] | None = None
    """Largest number of compared frames per sequence, without the reference; null: all."""
    person: PersonChoice = "largest"
    """Person to follow if there are several: largest, central, or a number from 0."""
    gaps: Literal["interpolate", "dark"] = "interpolate"
    """Joints lost for up to half a second: interpolate them, or leave them dark."""
    withhold_poses: bool = False
    """Generate every video a second time with black pose images, as a baseline."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Number of sequences of equal shape that are generated together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together; give both, or neither")

    @property
    def result_options(self) -> dict[str, Any]:
        """Options on which generated videos depend, given their poses."""
        return {name: value for name, value in to_dict(self).items() if name not in _NOT_RESULTS}


def load_options(
    checkpoint: str | Path | None = None, path: Path | None = None, overrides: Sequence[str] = ()
) -> EvaluateConfig:
    """Merge options: the command line's win over those of a YAML file, which win over the checkpoint's.

    Args:
        checkpoint: folder, gs:// or hub id; None has no options.
        path: YAML file.
        overrides: `key=value` arguments.

    Raises:
        InputError: an option is unknown or out of range, or a file is missing or damaged.
    """
    given = read_values(path, overrides)
    defaults = {} if checkpoint is None else read_sampling(resolve(checkpoint))
    defaults = {key: value for key, value in defaults.items() if key != "resolution"}  # the protocol decides
    return build_config(
        EvaluateConfig, merge_defaults(defaults, given), source=str(path) if path else "the configuration"
    )
