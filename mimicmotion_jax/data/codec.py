"""H.264 in memory for random access: every `KEYFRAME_INTERVAL` frames a keyframe, from which to decode."""

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
from mimicmotion_jax.video.h264 import H264Stream
from mimicmotion_jax.video.rgb import Look, upright_rgb

KEYFRAME_INTERVAL = 12


def encode_video(frames: Iterable[UInt8[np.ndarray, "height width 3"]], rate: Fraction, crf: int) -> bytes:
    """Encode frames as an MP4 file in memory.

    Args:
        frames: at least one; RGB, all of one size, with even sides.
        rate: frames per second.
        crf: quality, 0 (lossless in size and look) to 51.
    """
    # Keyframes at fixed places, also across cuts, bound how much has to be decoded.
    interval = str(KEYFRAME_INTERVAL)
    options = {"crf": str(crf), "g": interval, "keyint_min": interval, "sc_threshold": "0"}
    rest = iter(frames)
    first = next(rest)
    height, width = first.shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = H264Stream(container, rate, width, height, options)
        for pixels in itertools.chain([first], rest):
            stream.write(pixels)
        stream.finish()
    return file.getvalue()


@jaxtyped(typechecker=beartype)
def decode_frames(video: bytes, indices: Sequence[int], rate: Fraction) -> UInt8[np.ndarray, "frames height width 3"]:
    """Decode chosen frames of a video that `encode_video` made, each from the keyframe before it.

    Args:
        video: the MP4 file.
        indices: numbers of the frames, in any order, also repeatedly.
        rate: frames per second that it was encoded with.

    Raises:
        InputError: the video is damaged or lacks one of these frames.
    """
    found: dict[int, np.ndarray] = {}
    try:
        with av.open(io.BytesIO(video), "r") as container:
            stream = container.streams.video[0]
            # Clips are decoded in parallel; threads within one would only wait for each other.
            stream.codec_context.thread_count = 1
            unit = stream.time_base or Fraction(1)  # seconds per tick; every stream of an MP4 file has it
            decoder, position, look = container.decode(stream), -1, Look()
            for index in sorted(set(indices)):
                if index - index % KEYFRAME_INTERVAL > position:
                    container.seek(round(index / rate / unit), stream=stream)
                    decoder = container.decode(stream)
                for frame in decoder:
                    position = round((frame.pts or 0) * unit * rate)
                    if position >= index:
                        found[index] = upright_rgb(frame, stream, look)
                        break
                if position != index:
                    raise InputError(f"a video holds no frame {index}; prepare the data again.")
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(f"a video cannot be decoded ({type(error).__name__}); prepare the data again.") from None
    return np.stack([found[index] for index in indices])
