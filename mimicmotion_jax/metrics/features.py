"""Metric networks applied to videos: features of every 16-frame window, and LPIPS of every frame.

Preprocessing follows DisCo's evaluation code: each channel of each frame is resized to the network's square by Pillow's
bicubic filter on float values, with antialiasing, and is neither rounded nor clipped afterwards. Two details of that
code are not reproduced: it first stores every window as a GIF of 256 colours, and it skips the last window of a video.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from flax import nnx
from jaxtyping import Array, Float, Float32, UInt8, jaxtyped
from PIL import Image
from tqdm import tqdm

from mimicmotion_jax.metrics.frames import check_same_shape
from mimicmotion_jax.metrics.network import MetricNetwork
from mimicmotion_jax.metrics.perceptual import LPIPS, MIN_SIDE
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import fetch

WINDOW = 16
"""Frames per clip."""


@jaxtyped(typechecker=beartype)
def squash(frames: UInt8[np.ndarray, "f h w 3"], size: int) -> Float32[np.ndarray, "f {size} {size} 3"]:
    """Resize frames to `size` x `size` pixels, ignoring aspect ratios: bicubic, antialiased, not clipped."""
    squashed = np.empty((len(frames), size, size, 3), np.float32)
    for frame, into in zip(frames, squashed, strict=True):
        for channel in range(3):
            plane = Image.fromarray(frame[..., channel].astype(np.float32))
            into[..., channel] = np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC))
    return squashed


@jaxtyped(typechecker=beartype)
def clip_features(
    network: MetricNetwork, frames: UInt8[np.ndarray, "f h w 3"], *, batch_size: int = 4, progress: bool = True
) -> Float32[np.ndarray, "windows d"]:
    """Compute the features of all f - 15 windows of 16 consecutive frames of one video, in order.

    Pool the windows of all videos (`np.concatenate`) before passing them to `frechet_distance`.

    Args:
        network: "i3d" (400 logits, for FVD) or "resnet3d" (2,048 features, for FID-VID).
        frames: RGB, 0 to 255, of any size.
        batch_size: windows computed at a time; the features do not depend on it.
        progress: show a progress bar.

    Raises:
        InputError: the video has fewer than 16 frames, or the network is LPIPS.
    """
    if len(frames) < WINDOW:
        raise InputError(f"a video of {len(frames)} frames has no window of {WINDOW}; leave it out of FVD and FID-VID.")
    module = network.module
    if isinstance(module, LPIPS):
        raise InputError("LPIPS compares frames and has no features of clips; use i3d or resnet3d.")
    graph, state = nnx.split(module)
    squashed = squash(frames, module.input_size)

    def run(start: int) -> Array:
        # Each frame is transferred once; the windows of a batch are gathered on the device.
        needed = np.arange(start, start + batch_size + WINDOW - 1)
        return _window_features(graph, state, squashed.take(needed, axis=0, mode="clip"))

    windows = len(frames) - WINDOW + 1
    with tqdm(total=windows, desc=f"Features ({network.name})", unit="window", disable=not progress) as bar:
        return _in_batches(run, windows, batch_size, bar)


@jaxtyped(typechecker=beartype)
def lpips(
    network: MetricNetwork,
    frames: UInt8[np.ndarray, "f h w 3"],
    reference: UInt8[np.ndarray, "f2 h2 w2 3"],
    *,
    batch_size: int = 4,
    progress: bool = True,
) -> Float32[np.ndarray, " f"]:
    """Compute LPIPS of each frame against the frame of the same number in `reference`, without resizing.

    Args:
        network: "lpips".
        frames: RGB, 0 to 255.
        reference: as many frames of the same size.
        batch_size: pairs computed at a time.
        progress: show a progress bar.

    Raises:
        InputError: videos of different shapes, or sides shorter than `perceptual.MIN_SIDE`.
    """
    check_same_shape(frames, reference)
    height, width = frames.shape[1:3]
    if min(height, width) < MIN_SIDE:
        raise InputError(f"LPIPS needs frames of at least {MIN_SIDE}x{MIN_SIDE} pixels, not {width}x{height}.")
    graph, state = nnx.split(network.module)

    def run(start: int) -> Array:
        pairs = np.arange(start, start + batch_size)
        return _distances(graph, state, *(video.take(pairs, axis=0, mode="clip") for video in (frames, reference)))

    with tqdm(total=len(frames), desc="LPIPS", unit="frame", disable=not progress) as bar:
        return _in_batches(run, len(frames), batch_size, bar)


def _in_batches(run: Callable[[int], Array], count: int, batch_size: int, bar: tqdm) -> np.ndarray:
    """Concatenate `run(start)` over batches; the last one is padded to full size so that nothing compiles again."""
    results = []
    for start in range(0, count, batch_size):
        fresh = min(batch_size, count - start)
        results.append(fetch(run(start))[:fresh])
        bar.update(fresh)
    return np.concatenate(results)


@functools.partial(jax.jit, static_argnums=0)
def _window_features(graph: Any, state: nnx.State, frames: Float[Array, "f h w 3"]) -> Float[Array, "windows d"]:
    starts = jnp.arange(len(frames) - WINDOW + 1)
    return nnx.merge(graph, state)(frames[starts[:, None] + jnp.arange(WINDOW)])


@functools.partial(jax.jit, static_argnums=0)
def _distances(
    graph: Any, state: nnx.State, a: UInt8[Array, "n h w 3"], b: UInt8[Array, "n h w 3"]
) -> Float[Array, " n"]:
    return nnx.merge(graph, state)(a.astype(jnp.float32), b.astype(jnp.float32))
