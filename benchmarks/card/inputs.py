"""Random inputs and weights, the same in every process."""

import hashlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from card.sizes import Size
from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.models.build import NETWORKS, abstract_network

IDS = np.float32([[6, 127, 0]])
"""Added numbers of one branch: frames per second - 1, motion bucket, noise augmentation."""
POOL = np.random.default_rng(0).standard_normal(2**20 + 7).astype(np.float32)
"""Random numbers of which all weights are made: drawing 2.2 billion takes a minute."""


class Inputs:
    """Reference image, poses, noise, and the UNet's inputs of both branches, as NumPy arrays."""

    def __init__(self, size: Size):
        random = np.random.default_rng(0)
        self.image = random.integers(0, 256, (size.height, size.width, 3), np.uint8)
        self.poses = random.integers(0, 256, (size.frames, size.height, size.width, 3), np.uint8)
        self.latents = random.standard_normal(size.latents, np.float32)
        self.sample = random.standard_normal((2, *size.latents[:-1], 8), np.float32)
        self.context = random.standard_normal((2, size.context), np.float32)


def pooled(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Take values from `POOL`, beginning at a place that the key gives, repeated as often as needed."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") % POOL.size
    return np.resize(np.roll(POOL, -start), shape)


def random_pipeline(size: Size, dtype: str, num_devices: int | None = 1) -> MimicMotionPipeline:
    """Make a pipeline with weights from `POOL`: normal with variance 1 / fan-in, norms one, biases zero."""
    import ml_dtypes

    def draw(path: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            values = pooled(".".join(map(str, path)), shape) * np.prod(shape[:-1]) ** -0.5
        else:
            values = np.full(shape, float(path[-1] == "scale"))
        return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    mesh = sharding.sampling_mesh(num_devices)
    networks = {}
    for name in NETWORKS:
        graph, state = nnx.split(abstract_network(name, size.model))
        leaves = [(path, leaf.replace(draw(path, leaf.shape))) for path, leaf in nnx.to_flat_state(state)]
        networks[name] = nnx.merge(graph, nnx.from_flat_state(leaves))
    return MimicMotionPipeline(size.model, **jax.device_put(networks, sharding.replicated(mesh)), mesh=mesh)


def accelerator() -> bool:
    """Return True if jax computes on something else than a CPU."""
    return jax.default_backend() != "cpu"


def fast_dtype() -> str:
    """bfloat16 on accelerators, float32 on a CPU."""
    return "bfloat16" if accelerator() else "float32"
