"""Prepared pieces of videos: what they depend on, what they hold, and how they are stored.

    POSES.poses.npz    detected keypoints of a video; depends on its content and on the detector
    KEY-0000.npz       part of a video: frames as H.264 and the keypoints of one person; depends on `Recipe` besides
    KEY.json           `Outcome` of a video: its parts, or the reason for skipping it
    CODE-0000.npz      encodings of a part; depends on the checkpoint and on the size besides
    CODE.json          `Outcome` of a video whose parts are encoded
    KEY.failed.json    `Failure`; the next run tries the video again

All are pieces of a `BuildCache`.
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydantic
from etils import epath

from mimicmotion_jax.data.dataset import EncodingInfo
from mimicmotion_jax.data.record import ENCODINGS, PoseVideo
from mimicmotion_jax.pose.options import PersonChoice
from mimicmotion_jax.runtime.errors import InputError

FAILED = ".failed.json"


class RunError(InputError):
    """An error for which no single video is to blame; it ends the run."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options that determine a prepared video."""

    resolution: int
    crf: int
    max_seconds: float
    min_frames: int
    person: PersonChoice
    split_cuts: bool
    max_still: float
    max_crowd: float
    min_hands: float
    min_motion: float
    detector: str | None
    """`DetectorOptions.identity()`; None if no video needs a detector."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Encodings to compute, and the checkpoint to compute them with."""

    directory: str
    info: EncodingInfo
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Part:
    """A prepared stretch of a video."""

    name: str
    """Range of frames if the video was cut, else empty; `Preparer.outcome` puts the video's name before it."""
    num_frames: int
    width: int
    height: int
    fps: float
    num_bytes: int
    """Size of its pieces."""
    piece: str
    encodings: str | None = None
    """Piece with the encodings."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A stretch of a video that is not in the dataset."""

    name: str
    """Range of frames, as in `Part`."""
    flaw: str
    """Reason in a word or two."""
    reason: str
    """Reason in a sentence."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Parts of a prepared video, or the reason for skipping it."""

    parts: tuple[Part, ...] = ()
    skipped: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    """Stretches beside the parts, or the reason for skipping as the only one."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """An unexpected error while a video was prepared."""

    reason: str
    traceback: str


@contextlib.contextmanager
def explain_write_errors(folder: epath.PathLike) -> Iterator[None]:
    """Raise a full disk, missing permission and the like as a `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write to {folder} ({error.strerror or error}); once that is mended, run the same command again to "
            "go on."
        ) from None


def read_outcome(path: epath.Path) -> Outcome:
    """Read an outcome; a damaged file raises an error."""
    return pydantic.TypeAdapter(Outcome).validate_json(path.read_bytes())


def read_failure(path: epath.Path) -> Failure:
    """Read a failure; a damaged file raises an error."""
    return pydantic.TypeAdapter(Failure).validate_json(path.read_bytes())


def read_part(path: epath.Path) -> dict[str, Any]:
    """Read a part as the arrays of a record; a damaged file raises an error."""
    example = _read_npz(path)
    PoseVideo.from_example(example)  # raises an error if it is damaged
    return example


def read_encodings(path: epath.Path) -> dict[str, Any]:
    """Read the encodings of a part; a damaged file raises an error."""
    arrays = _read_npz(path)
    return {name: arrays[name] for name in ENCODINGS}


def to_npz(arrays: Mapping[str, Any]) -> bytes:
    """Serialise arrays as an uncompressed .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read_npz(path: epath.Path) -> dict[str, Any]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        return {name: array if array.ndim else array.item() for name, array in file.items()}
