"""Clips with known content, written by PyAV directly, so that decoding is tested without our encoder."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"


def ramp(count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """[count, height, width, 3]: frame i is grey of level 20 + 3 i, with moving texture in its right half."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (20 + 3 * np.arange(count)).astype(np.uint8)[:, None, None, None]
    noise = np.random.default_rng(0).integers(0, 256, (height // 16, width // 32, 3), np.uint8)
    texture = cv2.resize(noise, (width - width // 2, height), interpolation=cv2.INTER_LINEAR)
    for index, frame in enumerate(frames):
        frame[:, width // 2 :] = np.roll(texture, 5 * index, axis=0)
    return frames


def ramp_index(frame: np.ndarray) -> int:
    """Which frame of `ramp` this is."""
    return round((float(frame[:, : frame.shape[1] // 2 - 8].mean()) - 20) / 3)


def click_track(seconds: int, sample_rate: int) -> np.ndarray:
    """[seconds * sample_rate] in [-1, 1]: a 20 ms tone at 0.5, 1.5, 2.5, … seconds."""
    samples = np.zeros(seconds * sample_rate, np.float32)
    length = sample_rate // 50
    for second in range(seconds):
        start = int((second + 0.5) * sample_rate)
        samples[start : start + length] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(length) / sample_rate)
    return samples


def write_clip(
    path: Path,
    frames: np.ndarray | None = None,
    *,
    rate: int | Fraction = 25,
    codec: str = "libx264",
    container: str = "mp4",
    options: dict[str, str] | None = None,
    milliseconds: Sequence[int] | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sample_rate: int = 48_000,
) -> Path:
    """Write frames (at `rate`, or at the given times) and sound with PyAV."""
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        video = audio = None
        if frames is not None:
            video = output.add_stream(codec, rate=rate)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt, video.bit_rate = "yuv420p", 0 if codec == "libx264" else 4_000_000
            video.codec_context.time_base = Fraction(1, 1000) if milliseconds else 1 / Fraction(rate)
        if sound is not None:
            audio = output.add_stream(sound_codec, rate=sample_rate)
            audio.layout = "stereo"
        for index, pixels in enumerate(frames if frames is not None else ()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = milliseconds[index] if milliseconds else index
            frame.time_base = video.codec_context.time_base
            output.mux(video.encode(frame))
        if video is not None:
            output.mux(video.encode(None))
        for start in range(0, len(sound) if sound is not None else 0, 1000):
            block = np.repeat(sound[None, start : start + 1000], 2, axis=0)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.pts, frame.sample_rate, frame.time_base = start, sample_rate, Fraction(1, sample_rate)
            output.mux(audio.encode(frame))
        if audio is not None:
            output.mux(audio.encode(None))
    return path
