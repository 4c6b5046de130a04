"""Batches of the small model's two trainings, drawn from the scenes in memory and put on the device ahead of time."""

import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from card.small_world import World
from mimicmotion_jax import sharding
from mimicmotion_jax.data.clips import plan_clip
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.encode import BY_FRAME, take_encodings
from mimicmotion_jax.training.objective import Encoded

VAE_FRAMES = 3
_SAMPLES_OF_RUN = 2**24

Draw = Callable[[range], dict[str, np.ndarray]]
"""Samples of these numbers: the arrays that `EncodedWorld.take` returns."""


def vae_batches(world: World, clips: int, seed: int) -> Iterator[dict[str, jax.Array]]:
    """Clips of three neighbouring frames, as `mimicmotion train-vae` takes them: `index`, `frames`, `hand_mask`."""
    for number in itertools.count():
        random = np.random.default_rng([seed, number])
        scenes = random.integers(*world.kept(), clips) % world.capacity
        starts = random.integers(world.plan.num_frames - VAE_FRAMES + 1, size=clips)
        rows = (scenes[:, None], starts[:, None] + np.arange(VAE_FRAMES))
        batch = {name: world.arrays[name][rows] for name in ("frames", "hand_mask")}
        yield jax.device_put(batch | {"index": np.arange(number * clips, (number + 1) * clips, dtype=np.uint32)})


class EncodedWorld:
    """A world with the latents and embeddings of its newest scenes.

    Args:
        world: the scenes.
        encode: starts encoding frames [n, height, width, 3]; returns latents [n, h, w, c], not scaled, and
            embeddings [n, d].
        latent_channels: of the VAE.
        embedding: width of an embedding.
        group: scenes that are encoded together; divides the world's capacity.
        newest: scenes of the past to begin with.
    """

    def __init__(
        self,
        world: World,
        encode: Callable[[np.ndarray], tuple[jax.Array, jax.Array]],
        latent_channels: int,
        embedding: int,
        group: int,
        newest: int,
    ):
        shape = (world.capacity, world.plan.num_frames)
        self.world, self._encode, self._group = world, encode, group
        self.latents = np.empty((*shape, *world.plan.cells, latent_channels), np.float16)
        self.embeddings = np.empty((*shape, embedding), np.float32)
        first, end = world.kept()
        self._first = -(-max(first, end - newest) // group) * group
        self._started = self.count = self._first
        self._running: list[tuple[int, tuple[jax.Array, jax.Array]]] = []

    def kept(self) -> tuple[int, int]:
        """Numbers of the first encoded scene that stays for a while, and of the first that is not encoded yet."""
        return max(self.world.kept()[0], self._first), self.count

    def advance(self, groups: int) -> bool:
        """Fetch what was started before, and start encoding at most so many groups; False if there was nothing."""
        world, running = self.world, self._running
        self._running = []
        for _ in range(groups):
            if self._started + self._group > world.count:
                break
            place = slice(self._started % world.capacity, self._started % world.capacity + self._group)
            frames = world.arrays["frames"][place]
            self._running.append((place.start, self._encode(frames.reshape(-1, *frames.shape[2:]))))
            self._started += self._group
        for start, encoded in running:
            for array, new in zip((self.latents, self.embeddings), encoded, strict=True):
                place = array[start : start + self._group]
                place[:] = np.asarray(new).reshape(place.shape)
        self.count += len(running) * self._group
        return bool(running or self._running)

    def batches(
        self, config: TrainConfig, scaling_factor: float, mesh: Mesh, run: int = 0, draw: Draw | None = None
    ) -> Iterator[Encoded]:
        """Clips as `mimicmotion train` takes them from stored encodings (`data.clips.make_sample`).

        Args:
            config: of the training.
            scaling_factor: of the latents.
            mesh: for training.
            run: number of runs before; none of their samples is drawn again, below 2^8.
            draw: draws the samples of these numbers, with `take`; None draws from the newest scenes.
        """
        for first in itertools.count(run * _SAMPLES_OF_RUN, config.batch_size):
            samples = range(first, first + config.batch_size)
            drawn = self._draw(config, samples) if draw is None else draw(samples)
            yield _scaled(scaling_factor)(sharding.global_batch(mesh, config.batch_size, drawn, BY_FRAME))

    def _draw(self, config: TrainConfig, samples: range) -> dict[str, np.ndarray]:
        random = np.random.default_rng([config.seed, 1, samples.start])
        scenes = random.integers(*self.kept(), len(samples)) % self.world.capacity
        return self.take(scenes, config, config.seed, samples)

    def take(
        self, scenes: np.ndarray, config: TrainConfig, seed: int, samples: range, poses: str = "poses"
    ) -> dict[str, np.ndarray]:
        """Take a clip of each scene.

        Args:
            scenes: their places in the world's arrays.
            config: of the training.
            seed: of the choice of frames.
            samples: number of each sample, which the choice depends on too.
            poses: name of the array of drawn skeletons.
        """
        world = self.world
        plans = [plan_clip(config.data, world.plan.num_frames, seed, sample) for sample in samples]
        rows = (scenes[:, None], np.array([plan.frames for plan in plans]))
        references = (scenes, np.array([plan.reference for plan in plans]))
        return {
            "index": np.array(samples, np.uint32),
            "poses": world.arrays[poses][rows],
            "hand_mask": world.arrays["hand_mask"][rows],
            "latents": self.latents[rows],
            "reference_latents": self.latents[references],
            "embedding": self.embeddings[references],
        }


@functools.cache
def _scaled(factor: float) -> Callable[[dict[str, jax.Array]], Encoded]:
    return jax.jit(lambda batch: take_encodings(jax.tree.map(_widen, batch), factor))


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype == jnp.float16 else x
