"""Write videos frame by frame: H.264 in .mp4, .gif, or a folder of numbered PNGs. All of it or nothing appears."""

import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from beartype import beartype
from jaxtyping import UInt8, jaxtyped

from mimicmotion_jax.runtime.atomic_files import replace_directory, restore_directory
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.ffmpeg import open_container
from mimicmotion_jax.video.frame_rate import exact_rate
from mimicmotion_jax.video.gif import DRAFT, GifSink
from mimicmotion_jax.video.gif import MAX_RATE as MAX_GIF_RATE
from mimicmotion_jax.video.mp4 import Mp4Sink
from mimicmotion_jax.video.png import PngSink

MIN_RATE, MAX_RATE = 0.01, 1000
"""Frames per second; of videos outside, encoders make files that no player shows, or none."""

MAX_SIDE = 16384
"""Pixels of an MP4 or GIF, which is drafted as H.264: the most that its encoder takes."""

# With less free space than this (bytes) it is not worth starting.
_MIN_FREE = 64 * 2**20
_NUMBER_PATTERN = re.compile(r"%0(\d)d\.png", re.IGNORECASE)
_NUMBERED = re.compile(r"\d+\.png", re.IGNORECASE)


class Sink(Protocol):
    """A file format: takes frames one by one."""

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""

    def finish(self) -> None:
        """Write what is still outstanding; the file is complete afterwards."""

    def close(self) -> None:
        """Let go of the file, complete or not."""


class VideoWriter:
    """Takes the frames of one video; made by `open_writer`."""

    def __init__(self, sink: Sink, path: Path, width: int, height: int):
        """Feed `sink`; `path` is the name for messages."""
        self.num_frames = 0
        """Frames written so far."""
        self._sink, self._path, self._shape = sink, path, (height, width)

    @jaxtyped(typechecker=beartype)
    def write(self, frames: UInt8[np.ndarray, "*frames height width 3"]) -> None:
        """Append one frame `[height, width, 3]` or several `[n, height, width, 3]`, RGB.

        Raises:
            InputError: another size than the video's, or the disk is full.
        """
        if frames.ndim > 4 or frames.shape[-3:-1] != self._shape:
            raise InputError(
                f"{self._path} takes frames of height and width {self._shape}, not an array of shape {frames.shape}."
            )
        with _explained(self._path):
            for frame in frames.reshape(-1, *frames.shape[-3:]):
                self._sink.write(frame)
                self.num_frames += 1


def open_writer(
    path: str | Path,
    fps: float | Fraction,
    width: int,
    height: int,
    *,
    crf: int = 18,
    audio_from: str | Path | None = None,
    audio_start: float = 0.0,
    metadata: Mapping[str, str] | None = None,
    progress: bool = True,
) -> AbstractContextManager[VideoWriter]:
    """A context manager that gives a `VideoWriter`; the file appears under its name when the block ends well.

    Until then everything goes to a hidden name in the same folder; an exception in the block removes that and leaves an
    earlier file of this name as it was. The format goes by the name: `x.mp4` (H.264), `x.gif`, `folder` or
    `folder/%05d.png` (numbered PNGs; an earlier folder is replaced if it holds nothing else).

    Args:
        path: where to; missing folders are created.
        fps: frames per second; 29.97 and its like are taken for the broadcast fractions.
        width: of every frame, pixels.
        height: of every frame, pixels. (An odd side grows by one pixel in MP4.)
        crf: MP4 quality, 0 (lossless in size and look) to 51; 18 cannot be told from the original by eye.
        audio_from: a file whose sound to carry over (MP4 only; without sound it is no error).
        audio_start: second of that file at which the first frame was taken.
        metadata: stored as one JSON object in the file's comment; see `provenance`.
        progress: show a bar for a GIF's second pass.

    Raises:
        InputError: now, for a place that cannot be written to, an unknown format, an unreadable `audio_from` or a
            number out of range; while writing, when the disk is full; at the end, when no frame came.
    """
    path = Path(path)
    check_writable(path)
    target = _target(path)
    if min(width, height) < 1 or (target.format != "png" and max(width, height) > MAX_SIDE):
        raise InputError(f"cannot write {path} with {width}x{height} pixels; each side may have 1 to {MAX_SIDE}.")
    if not MIN_RATE <= fps <= MAX_RATE:
        raise InputError(f"cannot write {path} at {fps} frames per second; use {MIN_RATE} to {MAX_RATE}.")
    rate = exact_rate(fps)
    if not 0 <= crf <= 51:
        raise InputError(f"crf {crf} is out of range; use 0 (best) to 51 (smallest), 18 by default.")
    if audio_start < 0:
        raise InputError(f"audio_start {audio_start} lies before the sound begins; use 0 or more seconds.")
    if target.format == "gif" and rate > MAX_GIF_RATE:
        raise InputError(
            f"{path}: a GIF cannot show {float(rate):g} frames per second, only {MAX_GIF_RATE}; write an .mp4 instead."
        )
    source = None if audio_from is None else _sound_source(Path(audio_from))
    comment = None if metadata is None else json.dumps(dict(metadata), ensure_ascii=False)

    def make_sink(temporary: Path) -> Sink:
        if target.format == "png":
            return PngSink(temporary, target.digits, comment)
        if target.format == "gif":
            return GifSink(temporary, rate, width, height, comment, progress)
        return Mp4Sink(
            temporary, rate, width, height, crf=crf, comment=comment, audio_from=source, audio_start=audio_start
        )

    return _writing(target, make_sink, width, height)


def check_writable(path: str | Path) -> None:
    """Fail now rather than after hours of work.

    Raises:
        InputError: unknown format, a folder where a file should go or the reverse, a folder that holds other things
            than numbered PNGs, no permission, no space.
    """
    target = _target(Path(path))
    with _explained(target.path):
        _check_replaceable(target)
        folder = next(parent for parent in target.path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise InputError(f"cannot write {path}: {folder} is a file, not a folder; choose another place.")
        # Permission bits do not tell about read-only file systems; trying does.
        with tempfile.TemporaryFile(dir=folder):
            pass
        _check_names(target.path, folder)
        free = shutil.disk_usage(folder).free
    if free < _MIN_FREE:
        raise InputError(f"only {free / 2**20:.0f} MiB are free in {folder}; make room or choose another disk.")


def _check_names(path: Path, folder: Path) -> None:
    """Look the names below `folder`, which exists, up in it: a system that finds one too long says so."""
    *between, _ = path.absolute().relative_to(folder).parts
    for name in (*between, _temporary(path).name + DRAFT):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(folder / name)


def output_target(path: str | Path) -> Path:
    """The file or folder that appears when a video is written to `path`: for folder/%05d.png the folder.

    Raises:
        InputError: unknown format.
    """
    return _target(Path(path)).path


def is_written(path: str | Path) -> bool:
    """Whether a video lies there: a file, or a folder with numbered pictures; both appear only when complete."""
    try:
        target = _target(Path(path))
    except InputError:
        return False
    # Unlike `Path`'s, these take names that no file can have.
    if target.format != "png":
        return os.path.isfile(target.path)
    return os.path.isdir(target.path) and any(_NUMBERED.fullmatch(p.name) for p in target.path.iterdir())


@dataclass(frozen=True)
class _Target:
    path: Path
    """The file or folder that appears."""
    format: str
    digits: int = 5


def _target(path: Path) -> _Target:
    suffix = path.suffix.lower()
    if suffix in (".mp4", ".gif"):
        return _Target(path, suffix[1:])
    if match := _NUMBER_PATTERN.fullmatch(path.name):
        if not path.parent.name:
            raise InputError(f"cannot write {path}: pictures need a folder of their own, for example frames/{path}.")
        return _Target(path.parent, "png", int(match[1]))
    if path.name and (not suffix or os.path.isdir(path)):
        return _Target(path, "png")
    raise InputError(f"cannot write {path}: give a name like x.mp4, x.gif, or folder or folder/%05d.png for pictures.")


def _check_replaceable(target: _Target) -> None:
    if target.format != "png":
        if target.path.is_dir():
            raise InputError(f"{target.path} is a folder; give the name of a file in it or remove it.")
    elif target.path.exists():
        if not target.path.is_dir():
            raise InputError(f"{target.path} is a file, but pictures go into a folder; give another name.")
        if other := next((p for p in target.path.iterdir() if not _NUMBERED.fullmatch(p.name)), None):
            raise InputError(f"the folder {target.path} holds other things ({other.name}); give a new or empty one.")


def _sound_source(path: Path) -> Path | None:
    if path.is_dir():
        # Pictures have no sound.
        return None
    if not path.is_file():
        raise InputError(f"there is no file {path} to take the sound from; check the path.")
    open_container(path).close()
    return path


@contextlib.contextmanager
def _writing(target: _Target, make_sink: Callable[[Path], Sink], width: int, height: int) -> Iterator[VideoWriter]:
    temporary = _temporary(target.path)
    try:
        with _explained(target.path):
            target.path.parent.mkdir(parents=True, exist_ok=True)
            for orphan in target.path.parent.glob(f".{glob.escape(target.path.name)}.*.part"):
                _remove(orphan)  # of a run that was killed
            if target.format == "png":
                restore_directory(target.path)
            sink = make_sink(temporary)
        try:
            writer = VideoWriter(sink, target.path, width, height)
            yield writer
            if not writer.num_frames:
                raise InputError(f"no frame was written to {target.path}, so there is no video.")
            with _explained(target.path):
                sink.finish()
        finally:
            sink.close()
        with _explained(target.path):
            _check_replaceable(target)
            if target.format == "png":
                replace_directory(temporary, target.path)
            else:
                os.replace(temporary, target.path)
    finally:
        _remove(temporary)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the operating system objects to into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"cannot write {path}: this name is too long; choose a shorter one.") from None
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}; make room or choose another place.") from None
