"""A video file as FFmpeg sees it: opened, its packets gone over once, one frame turned into upright RGB."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from jaxtyping import UInt8

from mimicmotion_jax.runtime.errors import InputError

SWSCALE_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""FFmpeg's exact arithmetic between YUV and RGB; the default is up to three levels off."""

TAG_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Arguments of `av.open` for old tags, which are not always UTF-8; PyAV 19 reads these by itself."""

# How far the last packet may end before the duration the header promises: other tools round durations generously.
_DURATION_SLACK = 0.5


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading; `InputError` if FFmpeg cannot read it."""
    try:
        # An absolute path cannot be mistaken for a protocol ("a:b.mp4").
        return av.open(str(path.resolve()), **TAG_OPTIONS)
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
    return streams[0]


def upright_rgb(frame: VideoFrame, stream: VideoStream) -> UInt8[np.ndarray, "height width 3"]:
    """Convert a frame to RGB with square pixels, rotated by its metadata, transparency laid over white."""
    shape = stream.sample_aspect_ratio
    # The stream's size, not the frame's: some streams change size midway.
    size = {"width": round(stream.width * (shape or 1)), "height": stream.height, "interpolation": SWSCALE_QUALITY}
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba", **size).astype(np.uint16)
        alpha = rgba[..., 3:]
        pixels = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        pixels = frame.to_ndarray(format="rgb24", **size)
    # The angle is counter-clockwise, as in NumPy.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _decode(packet: Packet) -> list[VideoFrame]:
    try:
        return packet.decode()
    except av.error.FFmpegError:
        return []


def flushed(stream: VideoStream) -> list[VideoFrame]:
    """Return the frames that the decoder still holds back."""
    try:
        return stream.decode(None)
    except av.error.FFmpegError:
        return []


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
    """Result of one pass over the packets."""

    first_frame: VideoFrame | None
    times: list[Fraction]
    """Seconds at which the readable frames are shown, ascending."""
    end: Fraction
    """Second at which the last of them goes."""
    promised: int
    """Frames that the header announces; 0 where it does not say."""
    cut_off: bool


def scan_packets(container: InputContainer, stream: VideoStream) -> PacketScan:
    """Read the file through once, decoding only until the first frame; where it is damaged, the scan ends."""
    # MP4's own count includes what an edit list hides; its index does not. Other formats have no index to go by.
    promised = len(stream.index_entries) if "mp4" in container.format.name else stream.frames
    rate = stream.average_rate or Fraction(24)
    times: list[Fraction] = []
    end = latest = Fraction(0)
    first_frame, read, whole = None, 0, True
    try:
        for packet in container.demux():
            time = time_of(packet, packet.stream, read / rate)
            ends = time + duration_of(packet, packet.stream, 1 / rate)
            if packet.size:
                latest = max(latest, ends)
            # (`packet.stream_index` is 0 in the empty packets that end every stream.)
            if packet.stream.index != stream.index:
                continue
            if packet.is_corrupt:
                whole = False
                break
            if packet.size:
                read += 1
            if packet.size and not packet.is_discard:
                times.append(time)
                end = max(end, ends)
            if first_frame is None:
                first_frame = next(iter(_decode(packet)), None)
    except av.error.FFmpegError:
        whole = False
    if first_frame is None:
        first_frame = next(iter(flushed(stream)), None)
    if not promised and container.duration:
        # Microseconds, for the longest stream of the file.
        announced = Fraction((container.start_time or 0) + container.duration, 1_000_000)
        if announced > latest + _DURATION_SLACK:
            promised = read + round((announced - latest) * rate)
    return PacketScan(first_frame, sorted(times), end, promised, not whole or read < promised)
