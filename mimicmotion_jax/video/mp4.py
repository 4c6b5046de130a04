"""H.264 in MP4: plays in browsers, colours tagged, sound carried over."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from jaxtyping import UInt8

from mimicmotion_jax.video.audio import AudioTrack, has_sound
from mimicmotion_jax.video.ffmpeg import SWSCALE_QUALITY, open_container


class Mp4Sink:
    """Frames into one MP4 file, muxed as they come; the index is moved to the front at the end (`faststart`).

    4:2:0 colour needs even sides: an odd one gets its last row or column twice.
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        width: int,
        height: int,
        *,
        crf: int,
        comment: str | None = None,
        audio_from: Path | None = None,
        audio_start: float = 0.0,
    ):
        """Create the file; see `encode.open_writer` for the settings."""
        self._rate = rate
        self._num_frames = 0
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        if comment is not None:
            self._container.metadata["comment"] = comment
        self._stream = stream = self._container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        # Untagged, the same file is shown with BT.601 by some players and BT.709 by others.
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709

        self._audio_source = self._audio = None
        if audio_from is not None:
            source = open_container(audio_from)
            if has_sound(source):
                self._audio_source, self._audio = source, AudioTrack(self._container, source, audio_start)
            else:
                source.close()

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Encode the next frame, and the sound up to its end."""
        picture = VideoFrame.from_ndarray(np.pad(frame, self._padding, mode="edge"), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=SWSCALE_QUALITY,
        )
        picture.pts, picture.time_base = self._num_frames, 1 / self._rate
        self._num_frames += 1
        self._container.mux(self._stream.encode(picture))
        if self._audio is not None:
            self._audio.write_until(self._num_frames / self._rate)

    def finish(self) -> None:
        """Encode what the encoder holds back and complete the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def close(self) -> None:
        """Let go of the files."""
        # It fails only after a failed write, which has been reported; the file is about to be removed.
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()
        if self._audio_source is not None:
            self._audio_source.close()
