"""H.264 in memory, made for random access: a keyframe every `KEYFRAME_INTERVAL` frames, any frame decoded from it."""

import io
import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction

import av
import av.error
import numpy as np
from beartype import beartype
from jaxtyping import UInt8, jaxtyped

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.ffmpeg import upright_rgb
from mimicmotion_jax.video.h264 import H264Stream

KEYFRAME_INTERVAL = 12


def encode_video(frames: Iterable[UInt8[np.ndarray, "height width 3"]], rate: Fraction, crf: int) -> bytes:
    """Frames of one size, with even sides, as an MP4 file in memory; at least one.

    Args:
        frames: RGB.
        rate: frames per second.
        crf: quality, 0 (lossless in size and look) to 51.
    """
    # Keyframes at fixed places, also across cuts, so that what has to be decoded is bounded.
    interval = str(KEYFRAME_INTERVAL)
    options = {"crf": str(crf), "g": interval, "keyint_min": interval, "sc_threshold": "0"}
    coming = iter(frames)
    first = next(coming)
    height, width = first.shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = H264Stream(container, rate, width, height, options)
        for pixels in itertools.chain([first], coming):
            stream.write(pixels)
        stream.finish()
    return file.getvalue()


@jaxtyped(typechecker=beartype)
def decode_frames(video: bytes, indices: Sequence[int], rate: Fraction) -> UInt8[np.ndarray, "frames height width 3"]:
    """Chosen frames of a video that `encode_video` made, decoding only from the keyframe before each.

    Args:
        video: the MP4 file.
        indices: which frames, in any order, also repeatedly.
        rate: frames per second that it was encoded with.

    Raises:
        InputError: damaged, or without one of these frames.
    """
    found: dict[int, np.ndarray] = {}
    try:
        with av.open(io.BytesIO(video)) as container:
            stream = container.streams.video[0]
            # Clips are decoded side by side; threads within one would only wait for each other.
            stream.codec_context.thread_count = 1
            decoder, position = None, -1
            for index in sorted(set(indices)):
                keyframe = index - index % KEYFRAME_INTERVAL
                if decoder is None or keyframe > position:
                    container.seek(round(index / rate / stream.time_base), stream=stream)
                    decoder = container.decode(stream)
                while position != index:
                    frame = next(decoder)
                    position = round(frame.pts * frame.time_base * rate)
                    if position > index:
                        raise InputError(f"a video holds no frame {index}; prepare the data again.")
                found[index] = upright_rgb(frame, stream)
    except (av.error.FFmpegError, StopIteration, IndexError) as error:
        raise InputError(f"a video cannot be decoded ({type(error).__name__}); prepare the data again.") from None
    return np.stack([found[index] for index in indices])
