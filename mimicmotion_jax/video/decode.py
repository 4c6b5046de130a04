"""Read videos as a lazy stream of upright RGB frames: any file FFmpeg knows, animated GIFs, folders of pictures."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from etils import epath
from jaxtyping import UInt8

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.natural_order import natural_key
from mimicmotion_jax.video import image
from mimicmotion_jax.video.ffmpeg import (
    PacketScan,
    duration_of,
    flushed,
    open_container,
    scan_packets,
    time_of,
    upright_rgb,
    video_stream,
)
from mimicmotion_jax.video.frame_rate import assume_rate, exact_rate
from mimicmotion_jax.video.picture_files import read_timing

AnyPath = TypeVar("AnyPath", Path, epath.Path)

DEFAULT_FPS = 24.0
"""Frames per second of pictures, which do not record any."""

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif"})
"""File name suffixes of videos, in lower case."""

# Some encoders write a packet or two that show nothing (placeholders for skipped frames).
_SILENT_PACKETS = 2


@dataclass(frozen=True)
class VideoReader:
    """A video's properties, and its frames on demand. No file stays open: every `frames()` call opens its own.

    Frame k is what is seen at k / fps seconds. A video with a variable frame rate is laid onto that grid (frames are
    repeated or left out); unless `constant_rate`. Frames are upright, rotation by metadata and non-square pixels are
    already applied, and so in `width` and `height`. YUV without a colour tag is taken for BT.601, as FFmpeg,
    OpenCV and decord do; HDR is not tone-mapped.
    """

    path: Path
    rate: Fraction
    """Frames per second, exactly; the average where the rate is variable."""
    num_frames: int
    """Number of frames, counted packet by packet; fewer come where damage is tolerated."""
    width: int
    height: int
    has_audio: bool = False
    constant_rate: bool = True
    tolerate_truncation: bool = False
    num_packets: int = 0
    """Coded frames in the file; 0 for pictures."""
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
            for index, frame in enumerate(self._on_grid(self._decoded(container, stream), stream)):
                if index >= wanted.stop:
                    return
                if index in wanted:
                    yield upright_rgb(frame, stream)

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
        """Every frame of the file in the order of display; where the file is damaged, stop or raise."""
        count, whole, last = 0, True, None
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    whole = False
                    break
                for frame in packet.decode():
                    count, last = count + 1, frame
                    yield frame
        except av.error.FFmpegError:
            whole = False
        if not whole:
            # The decoder still holds good frames from before the damage.
            for frame in flushed(stream):
                count, last = count + 1, frame
                yield frame
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
        if scan.first_frame is None or not scan.times:
            raise InputError(f"no frame of {path} can be decoded; copy or download it again, or convert it to MP4.")
        if scan.cut_off and not tolerate_truncation:
            raise _truncated(path, len(scan.times), scan.promised)
        height, width = upright_rgb(scan.first_frame, stream).shape[:2]
        rate, constant = _rate(scan, stream.average_rate)
    # As many slots as have their middle before the end, as in `_on_grid`.
    slots = max(1, math.ceil((scan.end - scan.times[0]) * rate - Fraction(1, 2)))
    num_packets = len(scan.times)
    num_frames = num_packets if constant else slots
    return VideoReader(path, rate, num_frames, width, height, has_audio, constant, tolerate_truncation, num_packets)


def _rate(scan: PacketScan, announced: Fraction | None) -> tuple[Fraction, bool]:
    """Frames per second, and whether every frame is within half a frame of where that rate puts it.

    Time stamps are rounded (in GIF to hundredths of a second), so of the rates that fit, the plainest is the true one.
    """
    first, length = scan.times[0], scan.end - scan.times[0]
    measured = Fraction(len(scan.times)) / length if length else announced or Fraction(24)
    for rate in filter(None, (announced, Fraction(round(measured)), measured)):
        if all(abs((time - first) * rate - k) < Fraction(1, 2) for k, time in enumerate(scan.times)):
            return rate, True
    # The hole that a cut leaves among the last frames must not slow down the others.
    return (announced if scan.cut_off and announced else measured.limit_denominator(1001)), False


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
