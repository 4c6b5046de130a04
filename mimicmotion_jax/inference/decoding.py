"""Latents to frames chunk by chunk: memory bounded by the chunk, seams blended where chunks overlap.

The device decodes the next chunks while the caller, who may be writing a video file, works on the ones before.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.runtime.out_of_memory import fetch

Decode = Callable[[Float[np.ndarray, "n t h w c"]], Float[jax.Array, "n t height width 3"]]


def decode_in_chunks(
    decode: Decode,
    latents: Float[np.ndarray, "b f h w c"],
    chunk_size: int,
    overlap: int,
    num_chunks: int = 1,
    first: int = 0,
) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
    """Yield finished frames in order, a chunk or less at a time.

    Args:
        decode: turns the latents of chunks into frames; it need not wait for the device.
        latents: of the whole video.
        chunk_size: frames that are decoded together.
        overlap: frames that neighbouring chunks share; their pixels ramp linearly from one chunk to the next. 0 gives
            the official behaviour: chunks cut one after the other, the last one shorter.
        num_chunks: chunks per sample and call of `decode`, one for each device; where fewer are left, the last repeats.
        first: number of the first item to yield; those before are at hand already.

    Raises:
        InputError: an overlap as large as the chunk.
    """
    num_frames = latents.shape[1]
    indices, weights = _plan(num_frames, min(chunk_size, num_frames), overlap)
    starts = [*(int(frames[0]) for frames in indices), num_frames]
    if first >= len(indices):
        return
    # Chunks before the first are decoded for the frames that they share with it.
    begin = next(i for i, frames in enumerate(indices) if frames[-1] >= starts[first])
    pending = None  # weighted sums of the frames from starts[i] on
    for i, decoded in enumerate(_decoded(decode, latents, indices[begin:], num_chunks), begin):
        frames = decoded * weights[i][:, None, None, None]
        if pending is not None:
            frames[:, : pending.shape[1]] += pending
        finished = starts[i + 1] - starts[i]
        if i >= first:
            yield frames[:, :finished]
        pending = frames[:, finished:]


def _plan(
    num_frames: int, chunk_size: int, overlap: int
) -> tuple[list[Int[np.ndarray, " n"]], list[Float[np.ndarray, " n"]]]:
    """Plan the chunks: frames of each, and their weights."""
    if overlap == 0:
        indices = np.split(np.arange(num_frames), range(chunk_size, num_frames, chunk_size))
        return indices, [np.ones(len(frames), np.float32) for frames in indices]
    plan = make_plan(num_frames, chunk_size, min(overlap, max(chunk_size - 1, 0)), "progressive", reference_slot=False)
    return list(plan.indices), list(plan.weights)


def _decoded(
    decode: Decode, latents: Float[np.ndarray, "b f h w c"], indices: list[Int[np.ndarray, " n"]], num_chunks: int
) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
    """Yield decoded chunks in order."""

    def start(group: list[Int[np.ndarray, " n"]]) -> tuple[int, jax.Array]:
        filled = group + [group[-1]] * (num_chunks - len(group))
        return len(group), decode(np.concatenate([latents[:, frames] for frames in filled]))

    groups = _groups(indices, num_chunks)
    ahead = start(next(groups))
    for group in groups:
        ahead, ready = start(group), ahead
        yield from _fetch(*ready, num_chunks)
    yield from _fetch(*ahead, num_chunks)


def _groups(indices: list[Int[np.ndarray, " n"]], num_chunks: int) -> Iterator[list[Int[np.ndarray, " n"]]]:
    """Group chunks that are decoded in one call; only the last may be shorter, and is alone then."""
    whole = [frames for frames in indices if len(frames) == len(indices[0])]
    yield from (whole[first : first + num_chunks] for first in range(0, len(whole), num_chunks))
    if len(whole) < len(indices):
        yield indices[-1:]


def _fetch(count: int, decoded: jax.Array, num_chunks: int) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
    """Wait for the device, and yield the first `count` chunks."""
    yield from rearrange(fetch(decoded), "(k b) n h w c -> k b n h w c", k=num_chunks)[:count]
