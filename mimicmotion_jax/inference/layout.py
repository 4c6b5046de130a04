"""Windows of a video, and how they lie on the devices."""

from typing import NamedTuple

from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.diffusion.fusion import WindowPlan
from mimicmotion_jax.diffusion.sampler import bucket
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError


class Layout(NamedTuple):
    """Windows of a video, and how they lie on the devices."""

    plan: WindowPlan
    num_frames: int
    """Frames of the arrays: videos of similar length share a compiled program."""
    capacity: int
    """Windows of the longest video that shares it."""
    mesh: Mesh
    group: int
    """Windows that are predicted together."""


def lay_out(
    mesh: Mesh,
    model: ModelConfig,
    options: SamplingConfig,
    batch_size: int,
    num_frames: int,
    height: int,
    width: int,
    guided: bool | None = None,
) -> Layout:
    """Plan the windows of videos and lay them over the devices.

    Args:
        mesh: from `sharding.sampling_mesh`.
        model: sizes of the networks, and the checkpoint's window size.
        options: window size and overlap, fusion, group size, guidance.
        batch_size: number of videos.
        num_frames: of each, the reference's included.
        height: pixels.
        width: pixels.
        guided: of the steps to lay out; None: as the options say.

    Raises:
        InputError: windows or a cache that the checkpoint cannot have.
    """
    layers = model.unet.num_up_layers
    if options.cache_interval > 1 and options.cache_depth > layers:
        raise InputError(f"cache_depth={options.cache_depth}: this UNet has {layers} layers that can be computed anew.")
    plan = options.plan(num_frames, model.window_size)
    padded = _padded_frames(plan)
    capacity = options.plan(padded, model.window_size).num_windows
    # A device that has a part of a window must have nothing else, or merging batch and frames would move data.
    frames = plan.indices.shape[1] if batch_size == 1 else 1
    downscale = model.vae.downscale * model.unet.downscale
    positions = (height // downscale) * (width // downscale)
    branches = 2 if (options.guided if guided is None else guided) else 1
    windows = sharding.window_mesh(mesh, capacity, branches, frames, positions)
    parallel = windows.shape[sharding.WINDOWS]
    per_device = 1 if windows.shape[sharding.FRAMES] > 1 else min(options.group_size, -(-capacity // parallel))
    return Layout(plan, padded, capacity, windows, per_device * parallel)


def _padded_frames(plan: WindowPlan) -> int:
    num_frames, window_size = int(plan.indices.max()) + 1, plan.indices.shape[1]
    return num_frames if num_frames == window_size else bucket(-(-num_frames // 4)) * 4
