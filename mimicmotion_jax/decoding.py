"""Latents to frames chunk by chunk: memory bounded by the chunk, seams blended where chunks overlap."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.diffusion.fusion import make_plan

Decode = Callable[[Float[np.ndarray, "b n h w c"]], Float[np.ndarray, "b n height width 3"]]


def decode_in_chunks(
    decode: Decode, latents: Float[np.ndarray, "b f h w c"], chunk_size: int, overlap: int
) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
    """Yield finished frames in order, a chunk or less at a time.

    Args:
        decode: turns the latents of a chunk into frames.
        latents: of the whole video.
        chunk_size: frames that are decoded together.
        overlap: frames that neighbouring chunks share; their pixels ramp linearly from one chunk to the next. 0 gives
            the official behaviour: chunks cut one after the other, the last one shorter.

    Raises:
        InputError: an overlap as large as the chunk.
    """
    num_frames = latents.shape[1]
    chunk_size = min(chunk_size, num_frames)
    if overlap == 0:
        for start in range(0, num_frames, chunk_size):
            yield decode(latents[:, start : start + chunk_size])
        return
    plan = make_plan(num_frames, chunk_size, min(overlap, max(chunk_size - 1, 0)), "progressive", reference_slot=False)
    starts = [*plan.indices[:, 0], num_frames]
    pending = None  # weighted sums of the frames from starts[i] on
    for i, weights in enumerate(plan.weights):
        frames = decode(latents[:, plan.indices[i]]) * weights[:, None, None, None]
        if pending is not None:
            frames[:, : pending.shape[1]] += pending
        finished = starts[i + 1] - starts[i]
        yield frames[:, :finished]
        pending = frames[:, finished:]
