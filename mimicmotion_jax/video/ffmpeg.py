"""A video file as FFmpeg sees it: opened, its packets gone over once, its frames decoded from the first whole one."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation
from av.video.stream import VideoStream

from mimicmotion_jax.runtime.errors import InputError

SWSCALE_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""FFmpeg's exact arithmetic between YUV and RGB; the default is up to three levels off."""

HDR_TRANSFERS = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
"""Transfer characteristics of HDR: PQ and HLG."""

WIDE_PRIMARIES = {ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432}
"""Primaries wider than BT.709: BT.2020, DCI-P3 and Display P3."""

_UNSPECIFIED = 2  # among FFmpeg's numbers for colours

MAX_PIXELS = 2**27
"""Largest frame that is decoded, pixels; four times the largest that cameras film (8K)."""

TAG_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Arguments of `av.open` for old tags, which are not always UTF-8; PyAV 19 reads these by itself."""

# How far the last packet may end before the duration the header promises: other tools round durations generously.
_DURATION_SLACK = Fraction(1, 2)


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading; `InputError` if FFmpeg cannot read it."""
    try:
        # An absolute path cannot be mistaken for a protocol ("a:b.mp4").
        return av.open(str(path.resolve()), options={"max_pixels": str(MAX_PIXELS)}, **TAG_OPTIONS)
    except PermissionError:
        raise InputError(f"{path} may not be read (permission denied); change its permissions.") from None
    except av.error.FFmpegError:
        raise InputError(
            f"{path} is not a video, or is cut off so that none of it can be read; copy it again or convert it to MP4."
        ) from None


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the file's video stream; `InputError` if it has none."""
    # The cover picture of a piece of music is a video stream too, by name.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise InputError(f"{path} holds no video (sound or text only); give a file with pictures in it.")
    if streams[0].codec_context is None:
        raise InputError(f"{path} is coded in a way that FFmpeg cannot decode; convert it to H.264 MP4.")
    width, height = shown_size(streams[0])
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{path} is {width}x{height} by its header; a video may have {MAX_PIXELS // 10**6} million pixels a frame."
        )
    streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return streams[0]


def shown_size(stream: VideoStream) -> tuple[int, int]:
    """Return width and height in square pixels, before the picture is turned.

    They are the stream's, not a frame's: some streams change size midway.
    """
    return round(stream.width * (stream.sample_aspect_ratio or 1)), stream.height


def time_base_of(timed: Packet | Stream) -> Fraction:
    """Return the unit of its time stamps, seconds."""
    assert timed.time_base is not None  # once its file is open
    return timed.time_base


def time_of(timed: Packet | VideoFrame, stream: Stream, default: Fraction) -> Fraction:
    """Presentation time in seconds; AVI has none, and decoding order serves there; `default` without either."""
    stamp = timed.pts if timed.pts is not None else timed.dts
    return default if stamp is None else stamp * time_base_of(stream)


def duration_of(timed: Packet | VideoFrame, stream: Stream, default: Fraction) -> Fraction:
    """Duration in seconds; `default` where the file does not say."""
    return timed.duration * time_base_of(stream) if timed.duration else default


@dataclass(frozen=True)
class PacketScan:
    """Result of one pass over the packets, without decoding."""

    times: list[Fraction]
    """Seconds at which the readable frames are shown, ascending."""
    end: Fraction
    """Second at which the last shown of them goes. (In MP4 a packet's duration is that of its turn in decoding.)"""
    lead: int
    """Number of packets before the first keyframe; 0 where none is marked."""
    promised: int
    """Frames that the header announces; 0 where it does not say."""
    cut_off: bool

    def starting_at(self, start: Fraction) -> "PacketScan":
        """Leave out the frames before `start`, which depend on others that the file does not hold."""
        return dataclasses.replace(self, times=[time for time in self.times if time >= start] or [start])


def scan_packets(container: InputContainer, stream: VideoStream) -> PacketScan:
    """Read the file through once; where it is damaged, the scan ends."""
    # MP4's own count includes what an edit list hides; its index does not. Other formats have no index to go by.
    promised = len(stream.index_entries) if "mp4" in container.format.name else stream.frames
    rate = stream.average_rate or Fraction(24)
    times: list[Fraction] = []
    end = latest = Fraction(0)
    last = None
    count, read, whole, lead = 0, 0, True, None
    try:
        for packet in container.demux():
            time = time_of(packet, packet.stream, count / rate)
            ends = time + duration_of(packet, packet.stream, 1 / rate)
            if packet.size:
                latest = max(latest, ends)
            # (`packet.stream_index` is 0 in the empty packets that end every stream.)
            if packet.stream.index != stream.index or not packet.size:
                continue
            # What is lost before the first keyframe is not missed.
            if packet.is_corrupt and lead is not None:
                whole = False
                break
            if packet.is_keyframe and lead is None:
                lead = count
            count += 1
            # AVI counts moments at which nothing new is shown, which have no packet; time stamps number them.
            read = packet.dts + 1 if container.format.name == "avi" and packet.dts is not None else read + 1
            if not packet.is_discard:
                times.append(time)
                if last is None or time >= last:
                    last, end = time, ends
    except av.error.FFmpegError:
        whole = False
    if not promised and container.duration:
        # Microseconds, for the longest stream of the file.
        announced = Fraction((container.start_time or 0) + container.duration, 1_000_000)
        if announced > latest + _DURATION_SLACK:
            promised = read + round((announced - latest) * rate)
    # Such moments at the end of an AVI have no number.
    silent = _DURATION_SLACK * rate if read > count else 0
    return PacketScan(sorted(times), end, lead or 0, promised, not whole or read + silent < promised)


def _container_colours(stream: VideoStream) -> dict[str, int]:
    """Return a container's tags for HDR or a wide gamut, which decoders forget where the coded stream has none."""
    codec = stream.codec_context
    if codec.color_trc in HDR_TRANSFERS or codec.color_primaries in WIDE_PRIMARIES:
        return {name: getattr(codec, name) for name in ("color_primaries", "color_trc", "colorspace")}
    return {}


class DamageError(Exception):
    """A stream is damaged; the frames before the damage have been decoded."""


def decode_stream(container: InputContainer, stream: VideoStream, lead: int) -> Iterator[VideoFrame]:
    """Yield frames in the order of display, from the first that is whole.

    A recording that was cut out of a stream begins with pictures that refer to others before the cut. The decoder
    leaves them out, but not in every format before the first keyframe, hence `lead`: number of packets to leave out.

    Raises:
        DamageError: a packet after the first whole picture cannot be decoded.
    """
    started, tags = False, _container_colours(stream)
    try:
        for index, packet in enumerate(container.demux(stream)):
            if index < lead and packet.size:
                continue
            if packet.is_corrupt and started:
                raise DamageError
            try:
                for frame in packet.decode():
                    started = True
                    for name, tag in tags.items():
                        if getattr(frame, name) == _UNSPECIFIED:
                            setattr(frame, name, tag)
                    yield frame
            except av.error.FFmpegError:
                if started or not packet.size:
                    raise
    except (DamageError, av.error.FFmpegError):
        # The decoder still holds good frames from before the damage.
        with contextlib.suppress(av.error.FFmpegError):
            yield from stream.decode(None)
        raise DamageError from None


def first_picture(path: Path, lead: int | None = None) -> VideoFrame | None:
    """Decode the first whole picture of a video; None if there is none. `lead`: see `decode_stream`."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        if lead is None:
            packets = (packet for packet in container.demux(stream) if packet.size)
            lead = next((index for index, packet in enumerate(packets) if packet.is_keyframe), 0)
            return first_picture(path, lead)
        try:
            return next(decode_stream(container, stream, lead), None)
        except DamageError:
            return None
