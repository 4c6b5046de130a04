"""Read videos as a lazy stream of upright RGB frames: any file FFmpeg knows, animated GIFs, folders of pictures."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from etils import epath
from jaxtyping import UInt8

from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.natural_order import natural_key
from mimicmotion_jax.video import image
from mimicmotion_jax.video.ffmpeg import (
    DamageError,
    PacketScan,
    decode_stream,
    duration_of,
    first_picture,
    open_container,
    scan_packets,
    time_base_of,
    time_of,
    video_stream,
)
from mimicmotion_jax.video.frame_rate import assume_rate, dense_rate, exact_rate
from mimicmotion_jax.video.hdr import colour_note
from mimicmotion_jax.video.picture_files import read_timing
from mimicmotion_jax.video.rgb import Look, upright_rgb

AnyPath = TypeVar("AnyPath", Path, epath.Path)

DEFAULT_FPS = 24.0
"""Frames per second of pictures, which do not record any."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif"}
    | {".ts", ".mts", ".m2ts", ".3gp", ".wmv", ".flv", ".vob", ".ogv"}
)
"""File name suffixes of videos, in lower case."""

# Some encoders write a packet or two that show nothing (placeholders for skipped frames).
_SILENT_PACKETS = 2

# Seconds for which one picture may be shown: longer ones come of damaged time stamps.
_MAX_HOLD = 3600

# Seconds by which the last picture may outlast its turn without being repeated: what tools write there is not exact.
_SHORT_HOLD = Fraction(1, 2)


@dataclass(frozen=True)
class VideoReader:
    """A video's properties, and its frames on demand. No file stays open: every `frames()` call opens its own.

    Frame k is what is seen at k / fps seconds. A video with a variable frame rate is laid onto that grid (frames are
    repeated or left out); unless `constant_rate`. A file that begins in the middle of a stream begins with its first
    whole picture. Frames are upright: rotation and mirroring by metadata and non-square pixels are already applied, and
    so in `width` and `height`. YUV without a colour tag is taken for BT.601, as FFmpeg,
    OpenCV and decord do; HDR and wide gamuts are converted to BT.709.
    """

    path: Path
    rate: Fraction
    """Frames per second, exactly; where the rate is variable, that of the densest part."""
    num_frames: int
    """Number of frames, counted packet by packet; fewer come where damage is tolerated."""
    width: int
    height: int
    has_audio: bool = False
    constant_rate: bool = True
    tolerate_truncation: bool = False
    num_packets: int = 0
    """Coded frames in the file, from the first whole one on; 0 for pictures."""
    lead: int = 0
    """Coded frames before the first keyframe, where the file begins in the middle of a stream."""
    pictures: tuple[Path, ...] = ()
    """The files, where the video is a folder of pictures or a single one."""
    animation: tuple[int, ...] = ()
    """Number of the picture that each frame shows, in an animated PNG, WebP or AVIF."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.rate)

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.num_frames / self.rate)

    def frames(
        self, stride: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield frames `start`, `start + stride`, … before `stop` (as a slice does), one in memory at a time.

        Frames before `start` and between strides are decoded, not converted.

        Raises:
            InputError: no frame is selected; or, while reading, a damaged file (unless truncation is tolerated, then
                the frames end there) or pictures of different sizes.
        """
        if stride < 1:
            raise InputError(f"stride {stride} makes no sense; use 1 or more.")
        wanted = range(self.num_frames)[start:stop:stride]
        if not wanted:
            raise InputError(f"{self.path} has {self.num_frames} frames, none of them in {start}:{stop}:{stride}.")
        if self.animation:
            return self._animation_frames(wanted)
        return self._picture_frames(wanted) if self.pictures else self._video_frames(wanted)

    def _animation_frames(self, wanted: range) -> Iterator[np.ndarray]:
        pictures = enumerate(image.animation_frames(self.path))
        number, pixels = next(pictures)
        for index in wanted:
            while number < self.animation[index]:
                number, pixels = next(pictures)
            yield pixels

    def _picture_frames(self, wanted: range) -> Iterator[np.ndarray]:
        for path in self.pictures[wanted.start : wanted.stop : wanted.step]:
            pixels = image.read_image(path)
            if pixels.shape[:2] != (self.height, self.width):
                raise InputError(
                    f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, the first picture of the folder "
                    f"{self.width}x{self.height}; make them all the same size."
                )
            yield pixels

    def _video_frames(self, wanted: range) -> Iterator[np.ndarray]:
        with open_container(self.path) as container:
            stream = video_stream(container, self.path)
            stream.thread_type = "AUTO"
            look = None
            for index, frame in enumerate(self._on_grid(self._decoded(container, stream), stream)):
                if index >= wanted.stop:
                    return
                if look is None:
                    look = Look.of(frame, stream)
                if index in wanted:
                    yield upright_rgb(frame, stream, look)

    def _on_grid(self, frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
        """Slot k shows what is on screen in the middle of its time, (k + 1/2) / rate after the first frame."""
        if self.constant_rate:
            yield from frames
            return
        held = next(frames, None)
        if held is None:
            return
        first, slot = time_of(held, stream, Fraction(0)), 0
        while held is not None:
            following = next(frames, None)
            if following is not None:
                until = time_of(following, stream, first) - first
            elif self.tolerate_truncation:
                until = time_of(held, stream, first) + duration_of(held, stream, 1 / self.rate) - first
            else:
                until = self.num_frames / self.rate
            while (slot + Fraction(1, 2)) / self.rate < until:
                slot += 1
                yield held
            held = following

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Every whole frame of the file in the order of display; where the file is damaged, stop or raise."""
        count, whole, last = 0, True, None
        try:
            for frame in decode_stream(container, stream, self.lead):
                count, last = count + 1, frame
                yield frame
        except DamageError:
            whole = False
        silent = self.num_packets - count
        if self.tolerate_truncation:
            return
        if not whole or silent > _SILENT_PACKETS or last is None:
            raise _truncated(self.path, count, self.num_packets)
        for _ in range(silent):
            yield last


def open_video(path: str | Path, fps: float | None = None, tolerate_truncation: bool = False) -> VideoReader:
    """Inspect a video without decoding more than its first frame.

    Args:
        path: a video file, an animated GIF, a folder of pictures (in the order of the numbers in their names) or a
            single picture (a video of one frame).
        fps: frame rate of pictures, which do not record it; by default 24, which is logged. The rate that a video file
            records always holds.
        tolerate_truncation: read a damaged or cut-off file up to the damage instead of refusing it.

    Raises:
        InputError: missing, empty or unreadable file; no video in it; no pictures in the folder; a file that ends
            before its header says (how many frames can be read is named), unless that is tolerated.
    """
    path = Path(path)
    if path.is_dir():
        return _picture_reader(path, list_pictures(path), fps)
    if not path.is_file():
        raise InputError(f"there is no video {path}; check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again.")
    if image.is_still(path):
        return _picture_reader(path, (path,), fps)
    if image.is_animation(path):
        return _animation_reader(path)
    return _video_reader(path, tolerate_truncation)


def list_pictures(folder: AnyPath) -> tuple[AnyPath, ...]:
    """List the pictures in a folder in the order of the numbers in their names; `InputError` if it has none."""
    pictures = sorted((path for path in folder.iterdir() if _is_frame(path)), key=_by_number)
    if not pictures:
        raise InputError(f"the folder {folder} holds no pictures; put numbered PNG or JPEG files in it.")
    return tuple(pictures)


def _picture_reader(path: Path, pictures: tuple[Path, ...], fps: float | None) -> VideoReader:
    height, width = image.read_image(pictures[0]).shape[:2]
    if fps is None:
        fps = DEFAULT_FPS
        if len(pictures) > 1:
            assume_rate(str(path), DEFAULT_FPS)
    if not 0 < fps < math.inf:
        raise InputError(f"{path} cannot be played at {fps} frames per second; give a number above 0.")
    return VideoReader(path, exact_rate(fps), len(pictures), width, height, pictures=pictures)


def _animation_reader(path: Path) -> VideoReader:
    height, width = image.read_image(path).shape[:2]
    rate, shown = read_timing(path)
    return VideoReader(path, rate, len(shown), width, height, animation=shown)


def _video_reader(path: Path, tolerate_truncation: bool) -> VideoReader:
    with open_container(path) as container:
        stream = video_stream(container, path)
        has_audio = bool(container.streams.audio)
        scan = scan_packets(container, stream)
        first = first_picture(path, scan.lead)
        if first is None or not scan.times:
            raise InputError(f"no frame of {path} can be decoded; copy or download it again, or convert it to MP4.")
        height, width = upright_rgb(first, stream, Look.of(first, stream)).shape[:2]
        if note := colour_note(first):
            assume(f"{path} {note}.")
        scan = _from_first_picture(path, scan, time_of(first, stream, scan.times[0]))
        if scan.cut_off and not tolerate_truncation:
            raise _truncated(path, len(scan.times), scan.promised)
        rate, constant = _rate(path, scan, stream.average_rate, time_base_of(stream))
    num_packets = len(scan.times)
    num_frames = num_packets if constant else _num_slots(scan, rate)
    return VideoReader(
        path, rate, num_frames, width, height, has_audio, constant, tolerate_truncation, num_packets, scan.lead
    )


def _from_first_picture(path: Path, scan: PacketScan, start: Fraction) -> PacketScan:
    missing = start - scan.times[0]
    if missing <= 0:
        return scan
    assume(
        f"{path} begins in the middle of a stream: it starts at its first whole picture, and its sound with it, "
        f"{float(missing):.2f} s in."
    )
    return scan.starting_at(start)


def _num_slots(scan: PacketScan, rate: Fraction) -> int:
    """Count the frames of a grid that have their middle before the end, as in `VideoReader._on_grid`."""
    return max(1, math.ceil((scan.end - scan.times[0]) * rate - Fraction(1, 2)))


def _rate(path: Path, scan: PacketScan, announced: Fraction | None, tick: Fraction) -> tuple[Fraction, bool]:
    """Frames per second, and whether every frame is within half a frame of where that rate puts it.

    Time stamps are rounded (in GIF to hundredths of a second), so of the rates that fit, the plainest is the true one.
    """
    first, length, count = scan.times[0], scan.end - scan.times[0], len(scan.times)
    longest_hold = max(later - time for time, later in itertools.pairwise([*scan.times, scan.end]))
    if longest_hold > _MAX_HOLD:
        raise InputError(
            f"{path} shows one picture for {float(longest_hold) / 3600:.1f} hours by its time stamps, which are "
            "damaged; cut it, or write it anew with FFmpeg."
        )
    measured = count / length if length else announced or Fraction(24)
    for rate in filter(None, (announced, Fraction(round(measured)), measured)):
        if length - count / rate < _SHORT_HOLD and all(
            abs((time - first) * rate - k) < Fraction(1, 2) for k, time in enumerate(scan.times)
        ):
            return rate, True
    rate = dense_rate(scan.times, tick)
    assume(
        f"{path} has a variable frame rate: its {count} pictures are shown for as long as it says, on a grid of "
        f"{float(rate):g} frames per second, {_num_slots(scan, rate)} frames."
    )
    return rate, False


def _truncated(path: Path, readable: int, promised: int) -> InputError:
    return InputError(
        f"{path} is damaged or cut off, only {readable} of its {promised} frames can be read; copy or download it "
        "again, or set tolerate_truncation=true to use those."
    )


def _is_frame(path: Path | epath.Path) -> bool:
    # A dangling link counts: leaving it out would shift the frames after it.
    return path.suffix.lower() in image.SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _by_number(path: Path | epath.Path) -> list[int | str]:
    return natural_key(path.name)
