"""The options of `sample.py`: their types, ranges and defaults, and where they come from."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from mimicmotion_jax.checkpoint import read_sampling
from mimicmotion_jax.config import build_config, config_dataclass, read_values, to_dict
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.pose.keypoints import MAX_SIDE
from mimicmotion_jax.pose.options import DetectorOptions, DrawOptions, PersonChoice

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]  # pixels of a picture or video that is read
GeneratedSide = Annotated[int, Field(ge=1, le=8192)]  # pixels; the long side of the largest resolution, and more
T = TypeVar("T", bound=SamplingConfig)


@config_dataclass
class GenerateConfig(DrawOptions, DetectorOptions, SamplingConfig):
    """Everything that `sample.py` lets you choose, beside the files."""

    # The picture.
    resolution: Annotated[int, Field(ge=64, le=4096)] = 576  # the short side
    aspect: Literal["auto", "portrait", "landscape", "square"] = "auto"
    size: tuple[GeneratedSide, GeneratedSide] | None = None  # width, height; goes before resolution and aspect
    # The motion.
    stride: Annotated[int, Field(ge=1, le=10_000)] = 1  # take every n-th frame; the output's frame rate falls alike
    motion_size: tuple[Side, Side] | None = None  # width, height: of keypoints in pixels that do not say of what
    start: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # second of the motion at which to begin
    max_frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    person: PersonChoice = "largest"  # whom to follow
    reference_person: PersonChoice = "largest"  # who in the reference picture moves like that
    gaps: Literal["interpolate", "dark"] = "interpolate"  # joints that the detector lost for a moment
    align: Literal["none", "affine", "limb"] = "affine"
    smooth: bool = False  # one-euro filter against jitter
    # The output.
    audio: bool = True  # carry the driving video's sound over
    save_pose: bool = False  # beside the video: OUTPUT_pose.mp4 and OUTPUT_pose.npz
    side_by_side: bool = False  # reference, skeleton and result in one picture
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    # The run.
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 2  # jobs of equal shape that are generated together


def load_options(
    checkpoint: Path | None = None,
    path: Path | None = None,
    overrides: Sequence[str] = (),
    cls: type[T] = GenerateConfig,
    ignored: Collection[str] = (),
) -> T:
    """Options of the command line before those of a YAML file before those that the checkpoint brings with it.

    Args:
        checkpoint: None brings nothing.
        path: of the YAML file.
        overrides: `key=value`.
        cls: what the options are for.
        ignored: keys that a checkpoint may bring in vain.

    Raises:
        InputError: as `config.load_config`, or a checkpoint that is missing or damaged.
    """
    given = read_values(path, overrides)
    brought = {} if checkpoint is None else read_sampling(checkpoint)
    dropped = {*ignored, "size"} if given.keys() & {"resolution", "aspect"} else ignored  # size would go before them
    kept = {key: value for key, value in brought.items() if key not in dropped}
    return build_config(cls, kept | given, source=str(path) if path else "the configuration")


def with_options(config: T, options: Mapping[str, Any], source: str = "the job's options") -> T:
    """Return `config` with some options replaced and validated; `source` names their origin in errors.

    Raises:
        InputError: an unknown option, or a value that it cannot have.
    """
    size = {"size": None} if options.keys() & {"resolution", "aspect"} else {}  # it would override them
    return build_config(type(config), to_dict(config) | size | dict(options), source)
