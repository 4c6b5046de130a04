"""Options of `pipe(...)` and of `mimicmotion sample`: types, ranges and defaults, and where their values come from."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from etils import epath
from pydantic import Field

from mimicmotion_jax.checkpoint import read_sampling
from mimicmotion_jax.config import build_config, config_dataclass, read_values, to_dict
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.pose.keypoints import MAX_FPS, MAX_SIDE, MIN_FPS
from mimicmotion_jax.pose.options import DetectorOptions, DrawOptions, PersonChoice
from mimicmotion_jax.video.image import Aspect

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]  # pixels of a picture or video that is read
GeneratedSide = Annotated[int, Field(ge=1, le=8192)]  # pixels; the long side of the largest resolution, and more
SAVE_SECONDS = 60.0
"""Default time between two saves of a video's progress."""
_FULL: dict[str, Any] = {
    "sampler": "euler",
    "schedule": "karras",
    "num_inference_steps": 25,
    "guidance_interval": None,
    "cache_interval": 1,
}
PresetName = Literal["exact", "fast", "draft"]
PRESETS: dict[str, dict[str, Any]] = {
    "exact": _FULL,
    "fast": {**_FULL, "schedule": "ays", "num_inference_steps": 10, "guidance_interval": (0.05, 20.0)},
    "draft": {**_FULL, "schedule": "ays", "num_inference_steps": 4, "guidance_interval": (0.05, 20.0)},
}
"""Options that each preset stands for (docs/faster.md)."""
T = TypeVar("T", bound=SamplingConfig)


@config_dataclass
class PipelineOptions(DrawOptions, DetectorOptions, SamplingConfig):
    """Options of `MimicMotionPipeline.__call__`, which explains them one by one."""

    preset: PresetName | None = None
    """Steps, noise levels and guidance together: exact (25 steps), fast (a third of the work, hardly to be told apart),
    draft (a seventh, to see before you wait); other options that are given win. null: none of them."""
    resolution: Annotated[int, Field(ge=64, le=4096)] = 576
    """Short side, pixels; the long side is 16/9 of it."""
    aspect: Literal["auto", "portrait", "landscape", "square"] = "auto"
    """Shape of the video; auto follows the picture."""
    height: GeneratedSide | None = None
    """Height of the video, pixels; with width it replaces resolution and aspect."""
    width: GeneratedSide | None = None
    """Width of the video, pixels."""
    num_frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Length of the video; null: to the end of the motion."""
    start: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Second of the motion at which the video begins."""
    stride: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Take every n-th frame; the output's frame rate falls alike, the tempo stays."""
    scenes: Literal["all", "first", "longest"] | Annotated[int, Field(ge=0)] = "all"
    """Scene of a motion with hard cuts: all as one, first, longest, or a number; counted from start on, from 0."""
    motion_fps: Annotated[float, Field(ge=MIN_FPS, le=MAX_FPS)] | None = None
    """Frame rate of a motion that does not say it: pictures (24 assumed), OpenPose files (30)."""
    motion_size: tuple[Side, Side] | None = None
    """Width and height of the video behind keypoints that do not say it (OpenPose, DWPose, MMPose, MediaPipe)."""
    motion_kind: Literal["auto", "frames", "skeletons"] = "auto"
    """Meaning of arrays and PIL images given as motion; auto: skeletons if most pixels are black."""
    tolerate_truncation: bool = False
    """Use the readable part of a video that breaks off."""
    person: PersonChoice = "largest"
    """Person to follow in the motion: largest, central, or a number from 0."""
    reference_person: PersonChoice = "largest"
    """Person of the reference image who is to move."""
    gaps: Literal["interpolate", "dark"] = "interpolate"
    """Joints lost for up to half a second: interpolated, or left dark."""
    align: Literal["none", "affine", "limb"] = "affine"
    """Fit of the motion to the person: one map for the clip, limb by limb, or not at all."""
    smooth: bool = False
    """Filter jitter out of the motion (one-euro filter)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width belong together; give both, or neither")

    @property
    def shape(self) -> tuple[int, int] | Aspect:
        """Width and height where they are given, else the aspect, as `video.image.target_size` takes them."""
        if self.height is not None and self.width is not None:
            return self.width, self.height
        return self.aspect


@config_dataclass
class OutputOptions:
    """Options of `Video.save` and `VideoStream.save`."""

    audio: bool = True
    """Carry the driving video's sound over (MP4)."""
    save_pose: bool = False
    """Also write OUTPUT_pose.mp4 and OUTPUT_pose.npz."""
    side_by_side: bool = False
    """Show reference, skeleton and result in one picture."""
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    """Quality of an MP4: 0 (best) to 51 (smallest)."""
    overwrite: bool = False
    """Replace files that this software did not write."""
    watermark: bool | None = None
    """Mark the frames invisibly as generated; null: those of checkpoints, from 192 pixels on."""
    credentials: bool | None = None
    """Sign content credentials (C2PA); null: videos of checkpoints, from 192 pixels on, with c2pa-python installed."""
    certificate: str | None = None
    """PEM file with your certificate chain for them; null: a local one, which vouches for nobody."""
    private_key: str | None = None
    """PEM file with its private key."""


@config_dataclass
class GenerateConfig(OutputOptions, PipelineOptions):
    """Options of `mimicmotion sample`, beside its files."""

    batch_size: Annotated[int, Field(ge=1, le=1024)] = 2
    """Jobs of equal shape that are generated together."""
    resume: bool = True
    """Save the progress of a long video in a hidden folder beside it, and go on from there after a kill."""
    save_seconds: Annotated[float, Field(ge=0)] = SAVE_SECONDS
    """Time between two saves of the progress; a video that takes less saves nothing."""


def load_options(
    checkpoint: epath.PathLike | None = None,
    path: epath.PathLike | None = None,
    overrides: Sequence[str] = (),
    cls: type[T] = GenerateConfig,
    ignored: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> T:
    """Merge options: the command line's override a YAML file's, these `defaults`, and these those of the checkpoint.

    Args:
        checkpoint: its `sampling.json` gives defaults; None: there are none.
        path: YAML file.
        overrides: `key=value`.
        cls: options to build.
        ignored: checkpoint keys to ignore.
        defaults: of the command.

    Raises:
        InputError: as `config.load_config`, or a checkpoint that is missing or damaged.
    """
    given = dict(defaults or {}) | read_values(path, overrides)
    stored = {} if checkpoint is None else read_sampling(checkpoint)
    kept = {key: value for key, value in stored.items() if key not in ignored}
    return build_config(cls, merge_defaults(kept, given), source=str(path) if path else "the configuration")


def merge_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Options that are given, below them those of a preset that is given, and a checkpoint's for the others.

    A size given in one way drops the other way's.
    """
    dropped = {"height", "width"} if given.keys() & {"resolution", "aspect"} else set()
    preset = PRESETS.get(str(given.get("preset")), {})
    return {key: value for key, value in defaults.items() if key not in dropped} | preset | given


def with_options(config: T, options: Mapping[str, Any], source: str = "the job's options") -> T:
    """Return `config` with some options replaced and validated; `source` names their origin in errors.

    Raises:
        InputError: an unknown option, or a value that it cannot have.
    """
    return build_config(type(config), merge_defaults(to_dict(config), dict(options)), source)
