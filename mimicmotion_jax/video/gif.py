"""Animated GIF with one palette for the whole clip, so that nothing flickers, in bounded memory."""

import contextlib
import shutil
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from tqdm import tqdm

from mimicmotion_jax.video.ffmpeg import open_container

MAX_RATE = 50
"""Frames per second; browsers slow down anything faster."""

_TICK = Fraction(1, 100)
_RGB = VideoFormat("rgb24")


class GifSink:
    """Frames into one GIF. The palette needs all of them first, so they wait in a lossless draft beside the file.

    Colours are dithered with a fixed (Bayer) pattern: error diffusion would make still areas crawl.
    """

    def __init__(self, path: Path, rate: Fraction, width: int, height: int, comment: str, progress: bool):
        """Create the draft; `progress` shows a bar for the second pass."""
        self._path, self._rate, self._comment, self._progress = path, rate, comment, progress
        self._num_frames = 0
        self._draft_path = path.with_suffix(".draft")
        self._plain_path = path.with_suffix(".plain")
        self._draft = av.open(str(self._draft_path), "w", format="matroska")
        self._stream = self._draft.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "rgb24"
        self._palette = Graph()
        self._palette.link_nodes(
            self._palette.add_buffer(width=width, height=height, format=_RGB, time_base=1 / rate),
            self._palette.add("palettegen"),
            self._palette.add("buffersink"),
        ).configure()

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Count the frame's colours and put it into the draft."""
        picture = self._picture(frame)
        self._num_frames += 1
        self._palette.push(picture)
        # The filter works, and lets go of the frame, only when asked for its result, which is not there yet.
        with contextlib.suppress(av.error.BlockingIOError):
            self._palette.vpull()
        self._draft.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Make the palette and write the GIF from the draft."""
        self._draft.mux(self._stream.encode(None))
        self._draft.close()
        self._palette.push(None)
        palette = self._palette.vpull()
        self._write_gif(self._plain_path, palette)
        _copy_with_comment(self._plain_path, self._path, self._comment)

    def close(self) -> None:
        """Remove what was only needed on the way."""
        # It fails only after a failed write, which has been reported.
        with contextlib.suppress(av.error.FFmpegError):
            self._draft.close()
        self._draft_path.unlink(missing_ok=True)
        self._plain_path.unlink(missing_ok=True)

    def _write_gif(self, path: Path, palette: VideoFrame) -> None:
        width, height = self._stream.width, self._stream.height
        graph = Graph()
        pictures = graph.add_buffer(width=width, height=height, format=_RGB, time_base=_TICK)
        colours = graph.add_buffer(width=palette.width, height=palette.height, format=palette.format, time_base=_TICK)
        dithered, sink = graph.add("paletteuse", "dither=bayer:bayer_scale=4"), graph.add("buffersink")
        pictures.link_to(dithered, 0, 0)
        colours.link_to(dithered, 0, 1)
        dithered.link_to(sink)
        graph.configure()
        colours.push(palette)
        colours.push(None)
        with open_container(self._draft_path) as draft, av.open(str(path), "w", format="gif") as output:
            stream = output.add_stream("gif", rate=self._rate, width=width, height=height)
            stream.pix_fmt, stream.codec_context.time_base = "pal8", _TICK
            frames = tqdm(draft.decode(video=0), "GIF", self._num_frames, unit="frame", disable=not self._progress)
            to_rgb = VideoReformatter()
            for index, frame in enumerate(frames):
                picture = to_rgb.reformat(frame, format="rgb24")
                picture.pts, picture.time_base = round(index / self._rate / _TICK), _TICK
                pictures.push(picture)
                output.mux(stream.encode(cast(VideoFrame, sink.pull())))
            output.mux(stream.encode(None))

    def _picture(self, frame: np.ndarray) -> VideoFrame:
        picture = VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = self._num_frames, 1 / self._rate
        return picture


def _copy_with_comment(source: Path, destination: Path, comment: str) -> None:
    """Copy a GIF with a comment extension before its first picture: blocks of at most 255 bytes, each after its length.

    (Before the trailer, FFmpeg would count the comment as one more frame.)
    """
    text = comment.encode()
    blocks = b"".join(bytes([len(text[i : i + 255])]) + text[i : i + 255] for i in range(0, len(text), 255))
    with source.open("rb") as plain, destination.open("wb") as commented:
        header = plain.read(13)
        # Byte 10: whether a palette of 2^(n + 1) colours follows, and n.
        palette = plain.read(3 << (header[10] % 8 + 1)) if header[10] & 0x80 else b""
        commented.write(header + palette + b"\x21\xfe" + blocks + b"\x00")
        shutil.copyfileobj(plain, commented)
