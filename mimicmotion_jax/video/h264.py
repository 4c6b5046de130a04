"""H.264 in an open file: RGB pictures in, colours tagged so that every player shows the same ones."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from jaxtyping import UInt8

from mimicmotion_jax.video.ffmpeg import SWSCALE_QUALITY


class H264Stream:
    """A stream of 4:2:0 pictures in BT.709.

    Args:
        container: open for writing.
        rate: frames per second.
        width: of the pictures, even, pixels.
        height: likewise.
        options: for the encoder (x264), such as `crf`.
    """

    def __init__(self, container: OutputContainer, rate: Fraction, width: int, height: int, options: Mapping[str, str]):
        self._container, self._rate = container, rate
        # The same bytes in every run and on every CPU: with AVX-512 the encoder's look-ahead reads memory that nobody
        # has written, so that equal frames gave different files in a quarter of the runs (x264 core 165).
        options = {**options, "x264-params": "cpu-independent=1"}
        self._stream = stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        # Untagged, the same file is shown with BT.601 by some players and BT.709 by others.
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        self._to_yuv = VideoReformatter()
        self.num_frames = 0

    @property
    def seconds(self) -> Fraction:
        """Duration of the frames so far."""
        return self.num_frames / self._rate

    def write(self, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        """Encode the next frame."""
        frame = self._to_yuv.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=SWSCALE_QUALITY,
        )
        frame.pts, frame.time_base = self.num_frames, 1 / self._rate
        self.num_frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder holds back; nothing may follow."""
        self._container.mux(self._stream.encode(None))
