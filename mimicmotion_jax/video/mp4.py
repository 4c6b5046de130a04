"""H.264 in MP4: plays in browsers, colours tagged, sound carried over."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.video.audio import AudioTrack, Sound
from mimicmotion_jax.video.h264 import H264Stream


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
        comment: str,
        sound: Sound | None = None,
        sound_start: float | Fraction = 0.0,
    ):
        """Create the file; see `encode.open_writer` for the settings."""
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._container.metadata["comment"] = comment
        even = width + width % 2, height + height % 2
        self._pictures = H264Stream(self._container, rate, *even, {"crf": str(crf)})
        self._audio = None if sound is None else AudioTrack(self._container, sound, sound_start)

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Encode the next frame, and the sound up to its end."""
        self._pictures.write(np.pad(frame, self._padding, mode="edge"))
        if self._audio is not None:
            self._audio.write_until(self._pictures.seconds)

    def finish(self) -> None:
        """Encode what the encoder holds back and complete the file."""
        self._pictures.finish()
        self._container.close()

    def close(self) -> None:
        """Let go of the files."""
        # It fails only after a failed write, which has been reported; the file is about to be removed.
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()
        if self._audio is not None:
            self._audio.close()
