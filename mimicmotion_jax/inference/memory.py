"""Estimate of the memory that denoising takes, and the choice to predict the branches of guidance in turn."""

import logging
from typing import Any

import jax

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.layout import Layout
from mimicmotion_jax.runtime.hardware import memory_bytes

logger = logging.getLogger(__name__)

_GIB = 2**30

# Bytes of temporaries for each position of the latents in the UNet's batch and each byte of the dtype, as compiled for
# an A100: 150 MB for a frame of 72x128 in bfloat16 (H100: 126, v5e: 96 to 118; benchmarks/results/compiled).
_BYTES_PER_POSITION = 8140
# Part of a device's memory that programs can have: the rest is the runtime's, and lost between allocations.
_USABLE = 0.92


def predict_in_turn(
    options: SamplingConfig, layout: Layout, batch_size: int, positions: int, itemsize: int, resident: int
) -> bool:
    """Decide whether the unconditional and the conditional branch are predicted one after the other.

    It takes half the temporaries and the same FLOPs, in smaller products. The choice and its reason are logged.

    Args:
        options: `memory`, and guidance.
        layout: windows on the devices.
        batch_size: number of videos.
        positions: of a frame's latents.
        itemsize: bytes of the networks' dtype.
        resident: bytes of the parameters on each device.
    """
    mesh = layout.mesh
    if options.guidance_scale <= 1 or mesh.shape[sharding.BRANCHES] > 1:
        return False
    if options.memory != "auto":
        return options.memory == "low"
    device = mesh.devices.flat[0]
    limit = _limit(device)
    if limit is None:
        return False
    windows = layout.group // mesh.shape[sharding.WINDOWS]
    frames = batch_size * windows * layout.plan.indices.shape[1] / mesh.shape[sharding.FRAMES]
    together = resident + estimate_temporaries(2 * frames, positions, itemsize)
    if together <= limit:
        return False
    logger.info(
        "memory: guidance's branches are predicted in turn; together they would take about %.1f GiB, and programs can "
        "have %.1f GiB on a %s (memory=fast keeps them together)",
        together / _GIB,
        limit / _GIB,
        device.device_kind,
    )
    return True


def estimate_temporaries(frames: float, positions: int, itemsize: int) -> int:
    """Estimate the bytes that the UNet's activations take on one device.

    Args:
        frames: frames in the UNet's batch on the device: videos x branches x windows x frames of a window.
        positions: of a frame's latents, height times width.
        itemsize: bytes of the dtype.
    """
    return int(frames * positions * itemsize * _BYTES_PER_POSITION)


def _limit(device: Any) -> float | None:
    """Bytes that programs can have, None if unknown (CPUs). Of devices that are not at hand, by their data sheets."""
    if device in jax.local_devices():
        stats = device.memory_stats()
        total = stats.get("bytes_limit") if stats else None
        return None if total is None else float(total)
    total = memory_bytes(device.device_kind)
    return None if total is None else _USABLE * total
