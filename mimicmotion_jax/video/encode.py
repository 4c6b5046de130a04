"""Write videos frame by frame: H.264 in .mp4, .gif, or a folder of numbered PNGs. All of it or nothing appears."""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from beartype import beartype
from etils import epath
from jaxtyping import UInt8, jaxtyped

from mimicmotion_jax.runtime.atomic_files import restore_directory, working_folder
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.audio import Sound, find_sound
from mimicmotion_jax.video.frame_rate import exact_rate
from mimicmotion_jax.video.gif import MAX_RATE as MAX_GIF_RATE
from mimicmotion_jax.video.gif import GifSink
from mimicmotion_jax.video.mp4 import Mp4Sink
from mimicmotion_jax.video.png import PngSink
from mimicmotion_jax.video.provenance import to_comment
from mimicmotion_jax.video.target import Target

MIN_RATE, MAX_RATE = 0.01, 1000
"""Frames per second; of videos outside, encoders make files that no player shows, or none."""

MAX_SIDE = 16384
"""Pixels of an MP4 or GIF, which is drafted as H.264: the most that its encoder takes."""

# With less free space than this (bytes) it is not worth starting.
_MIN_FREE = 64 * 2**20


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

    def __init__(self, sink: Sink, path: Path | epath.Path, width: int, height: int):
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
    path: epath.PathLike,
    fps: float | Fraction,
    width: int,
    height: int,
    *,
    crf: int = 18,
    audio_from: str | Path | None = None,
    audio_start: float | Fraction = 0.0,
    metadata: Mapping[str, str] | None = None,
    progress: bool = True,
    overwrite: bool = False,
    seal: Callable[[Path], None] | None = None,
) -> AbstractContextManager[VideoWriter]:
    """Return a context manager that gives a `VideoWriter`; the file appears under its name when the block ends well.

    Until then everything goes to a hidden folder beside it (for gs:// to a local temporary one, from where the result
    is uploaded); an exception in the block removes that and leaves an earlier file of this name as it was. The format
    goes by the name: `x.mp4` (H.264), `x.gif`, `folder` or `folder/%05d.png` (numbered PNGs). An earlier result of this
    software is replaced, as its comment tells; other files are not, unless `overwrite`. One writer at a time.

    Args:
        path: where to, local or gs://; missing folders are created.
        fps: frames per second; 29.97 and its like are taken for the broadcast fractions.
        width: of every frame, pixels.
        height: of every frame, pixels. (An odd side grows by one pixel in MP4.)
        crf: MP4 quality, 0 (lossless in size and look) to 51; 18 cannot be told from the original by eye.
        audio_from: a file whose sound to carry over (MP4 only; without sound it is no error).
        audio_start: second of that file at which the first frame is shown: number of that frame / frame rate.
        metadata: stored as one JSON object in the file's comment, with the software's name; see `provenance`.
        progress: show a bar for a GIF's second pass.
        overwrite: replace files that this software did not write, too.
        seal: called with the finished file, or the folder of pictures, before it gets its name; it may change them.

    Raises:
        InputError: now, for a place that cannot be written to (see `check_writable`), an unreadable `audio_from` or a
            number out of range; on entry, when another writer is at work; while writing, when the disk is full; at the
            end, when no frame came.
    """
    check_writable(path, overwrite)
    target = Target.parse(path)
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
    sound = None if audio_from is None else _sound_of(Path(audio_from))
    comment = to_comment(metadata)

    def make_sink(temporary: Path) -> Sink:
        if target.format == "png":
            return PngSink(temporary, target.digits, comment)
        if target.format == "gif":
            return GifSink(temporary, rate, width, height, comment, progress)
        return Mp4Sink(temporary, rate, width, height, crf=crf, comment=comment, sound=sound, sound_start=audio_start)

    return _writing(target, make_sink, width, height, overwrite, seal)


def check_writable(path: epath.PathLike, overwrite: bool = False) -> None:
    """Check before hours of work that a video can be written to a place.

    Args:
        path: file, folder or pattern, as for `open_writer`.
        overwrite: allow a file that this software did not write to be replaced.

    Raises:
        InputError: unknown format, a folder where a file should go or the reverse, a file of the user's that would be
            replaced, a folder that holds other things than numbered PNGs, another writer at work, no permission, no
            space.
    """
    target = Target.parse(path)
    with _explained(target.path):
        target.check_replaceable(overwrite)
        if target.is_remote:
            return
        # Permission bits do not tell about read-only file systems, nor about names that are too long; trying does.
        with working_folder(Path(target.path)) as folder:
            free = shutil.disk_usage(folder).free
    if free < _MIN_FREE:
        raise InputError(f"only {free / 2**20:.0f} MiB are free for {path}; make room or choose another disk.")


def output_target(path: epath.PathLike) -> Path | epath.Path:
    """Return the file or folder that appears when a video is written to `path`: for folder/%05d.png the folder.

    Raises:
        InputError: unknown format or storage.
    """
    return Target.parse(path).path


def is_written(path: epath.PathLike) -> bool:
    """Return True if a complete video that this software wrote is there; False for any other file."""
    try:
        return Target.parse(path).is_written()
    except InputError:
        return False


def _sound_of(path: Path) -> Sound | None:
    if path.is_dir():
        # Pictures have no sound.
        return None
    if not path.is_file():
        raise InputError(f"there is no file {path} to take the sound from; check the path.")
    return find_sound(path)


@contextlib.contextmanager
def _writing(
    target: Target,
    make_sink: Callable[[Path], Sink],
    width: int,
    height: int,
    overwrite: bool,
    seal: Callable[[Path], None] | None,
) -> Iterator[VideoWriter]:
    with contextlib.ExitStack() as stack:
        with _explained(target.path):
            if target.is_remote:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            else:
                folder = stack.enter_context(working_folder(Path(target.path)))
            if target.format == "png":
                restore_directory(target.path)
            unfinished = folder / f"video.{target.format}"
            sink = make_sink(unfinished)
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
            if seal is not None:
                seal(unfinished)
            target.check_replaceable(overwrite)
            target.replace(unfinished)


@contextlib.contextmanager
def _explained(path: Path | epath.Path) -> Iterator[None]:
    """Turn errors of the operating system into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"cannot write {path}: this name is too long; choose a shorter one.") from None
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}; make room or choose another place.") from None
