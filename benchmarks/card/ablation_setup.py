"""Shared setup of the ablation on a card: the world in latents, compiled programs, test sequences, training."""

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from card import ablation_scores, small_networks, small_scores
from card.ablation_sizes import SEEDS
from card.ablation_table import FULL, VARIANTS, Variant
from card.ablation_world import FIGURE_7, POSES, AblationPlan, variant_samples
from card.runner import ROOT
from card.small_batches import EncodedWorld
from card.small_clock import Clock, train_by_clock
from card.small_files import VARIABLE, find_earlier, with_encoders
from card.small_sizes import SmallSize
from card.small_world import SPARE, Task, World, host_only
from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.diffusion.fusion import WindowPlan, plan_seams
from mimicmotion_jax.inference.prefetch import prefetch
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.cpu_devices import available_cores
from mimicmotion_jax.training.networks import FROZEN, TRAINED
from mimicmotion_jax.training.objective import Encoded
from mimicmotion_jax.training.state import TrainState, init_state
from mimicmotion_jax.training.template import Template, flat_networks, split_trainable

Trained = tuple[Mapping[str, Any], list[dict[str, float]]]
"""Parameters of UNet and PoseNet, and the losses on the way."""

SHIPPED = ROOT / "mimicmotion_jax" / "weights" / "small"
_OWN_CORES = 4  # for compilation
_WORLD_SEED, _TEST_SEED = 20261127, 20261128
_WARM_STEPS, _TIMED_STEPS = 3, 10


class Setup:
    """Data, programs and networks. The constructor returns when everything is ready and timed.

    Args:
        size: sizes.
        clock: of the run.

    Attributes:
        source: checkpoint whose VAE and image encoder are used: that which SMALL_MODEL_FROM names, or the shipped one.
        goes_on: whether the trainings go on from its UNet and PoseNet, because these have the same sizes.
        model: sizes of the networks.
        config: of the trainings.
        initial: parameters of UNet and PoseNet before the trainings, by seed.
        scenes: test sequences.
        encoded: the world to train on.
        step_seconds: of a training step.
        score_seconds: of a row without its training.
    """

    def __init__(self, size: SmallSize, clock: Clock):
        self.size, self.clock = size, clock
        self.source = (find_earlier(ROOT) if VARIABLE in os.environ else None) or SHIPPED
        found = checkpoint.read_config(self.source)
        self.model = with_encoders(size.model, found)
        self.goes_on = found == self.model
        config = size.training(self.model, 0)
        objective = dataclasses.replace(config.objective, hand_weight=FULL.hand_weight)
        self.config = dataclasses.replace(config, objective=objective)
        limit, workers = size.limit or 0, size.workers or max(1, available_cores() - _OWN_CORES)
        plan, test = self._plans()
        with host_only():
            initial = Task.call(_initial_parameters, self.model, self.source if self.goes_on else None)
            tasks = [Task.call(_make_scenes, test, range(n, size.test[0], 4)) for n in range(min(4, size.test[0]))]
            self.world = World(plan, limit + SPARE * workers, workers, limit)
        self._mesh = sharding.training_mesh(devices=jax.local_devices()[:1])
        self._template = Template(self.model, TRAINED)
        together = (size.encode_scenes * size.scene_frames, size.height, size.width, 3)
        compile_it = functools.partial(small_networks.compile_program, hurried=size.max_steps is not None)
        with contextlib.closing(self.world), ThreadPoolExecutor() as threads:
            step = threads.submit(compile_it, small_networks.lower_step(self.config, self._mesh))
            encoding = threads.submit(compile_it, small_networks.lower_encode(self.model, together))
            self.initial: dict[int, dict[str, Any]] = initial.result()
            self.scenes: list[dict[str, Any]] = [scene for task in tasks for scene in task.result()]
            clock.say("parameters and test sequences are there")
            self.score_seconds = self._time_scoring()
            clock.say(f"sampling and scores are compiled; a row takes {self.score_seconds:.1f} s")
            self._step = step.result()
            self.encode = functools.partial(
                encoding.result(), *_load_frozen(self.source, self.model, "float32").values()
            )
            clock.say(f"all programs are compiled, {self.world.count} scenes are there")
            self.world.wait(limit)
            vae, encoder = self.model.vae, self.model.image_encoder
            self.encoded = EncodedWorld(
                self.world, self.encode, vae.latent_channels, encoder.projection_dim, size.encode_scenes, limit
            )
            while self.encoded.advance(8):
                pass
        self.step_seconds = self._time_steps()
        clock.say(f"{self.encoded.count} scenes are encoded; a step takes {1e3 * self.step_seconds:.1f} ms")

    def train(self, variant: Variant, seed: int, steps: int, name: str) -> Trained:
        """Train UNet and PoseNet for a number of steps; returns their averaged parameters, and the losses on the way.

        Args:
            variant: decides on poses and weights.
            seed: of parameters, data order and noise.
            steps: how many; the learning rate falls to zero at the last.
            name: for the lines that are printed.
        """
        state, step = self._start(seed)
        frames = self.config.batch_size * self.model.window_size
        batches = self._batches(variant, seed)
        state, history = train_by_clock(
            name, state, step, batches, self.clock, math.inf, frames=frames, max_steps=steps
        )
        return self._fixed(seed) | state.averaged_params, history

    def sampling(self, variant: Variant) -> SamplingConfig:
        """Options of sampling for a variant."""
        return dataclasses.replace(self.config.trained_sampling, fusion=variant.fusion)

    def plan(self, variant: Variant, frames: int) -> WindowPlan:
        """Windows in which a variant generates videos of so many frames."""
        return self.sampling(variant).plan(frames, self.model.window_size)

    def seams(self, variant: Variant, frames: int) -> Sequence[int]:
        """Frames with which a new window begins, 0 for the first after the reference."""
        return plan_seams(self.plan(variant, frames), frames)

    def generate(self, params: Mapping[str, Any], variant: Variant, seed: int) -> np.ndarray:
        """Generate the test sequences with UNet's and PoseNet's parameters."""
        scenes = [{**scene, "poses": scene[POSES[variant.confidence]]} for scene in self.scenes]
        return small_scores.generate(self.model, self.networks(params), scenes, self.sampling(variant), seed)

    def networks(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All networks in the size's format; trained ones with these parameters."""
        cast = {key: jnp.asarray(value).astype(self.size.dtype) for key, value in params.items()}
        return self._template.networks(cast) | _load_frozen(self.source, self.model, self.size.dtype)

    def _plans(self) -> tuple[AblationPlan, AblationPlan]:
        """Scenes to train on, and test sequences."""
        size, downscale = self.size, self.model.vae.downscale
        cells = (size.height // downscale, size.width // downscale)
        style = self.config.data.draw_style
        picture = size.width, size.height, size.scene_frames
        plan = AblationPlan(*picture, size.fps, cells, style, _WORLD_SEED, movement="free")
        changes = {"num_frames": size.test[1], "fps": size.fps[:1], "seed": _TEST_SEED}
        return plan, dataclasses.replace(plan, split="test", detector=FIGURE_7, **changes)

    def _start(self, seed: int) -> tuple[TrainState, Callable[[TrainState, Encoded], Any]]:
        """State of a training before its first step, and the step."""
        fixed = self._fixed(seed)
        trained = {key: value for key, value in self.initial[seed].items() if key not in fixed}
        state = init_state(trained, self.config.optimizer, self.config.steps, self._mesh)
        fixed = jax.device_put(fixed, sharding.shard_parameters(self._mesh, fixed))
        return state, lambda state, batch: self._step(state, fixed, batch)

    def _fixed(self, seed: int) -> dict[str, Any]:
        params = self.initial[seed]
        return {key: params[key] for key in split_trainable(list(params), self.config.trainable)[1]}

    def _batches(self, variant: Variant, seed: int) -> Iterator[Encoded]:
        draw = variant_samples(self.encoded, self.config, variant, seed)
        return prefetch(self.encoded.batches(self.config, self.model.vae.scaling_factor, self._mesh, draw=draw))

    def _time_steps(self) -> float:
        """Seconds of a step; the state is thrown away."""
        state, step = self._start(SEEDS[0])
        batches, timed = self._batches(FULL, SEEDS[0]), self.size.max_steps or _TIMED_STEPS
        begin = time.monotonic()
        for number in range(_WARM_STEPS + timed):
            if number == _WARM_STEPS:
                jax.block_until_ready(state)
                begin = time.monotonic()
            state, _ = step(state, next(batches))
        jax.block_until_ready(state)
        return (time.monotonic() - begin) / timed

    def _time_scoring(self) -> float:
        """Seconds of a row without its training, when the programs for all modes of fusion are compiled."""
        params = self.initial[SEEDS[0]]
        for variant in VARIANTS.values():
            if all(variant.ticks[:2]):
                self.generate(params, variant, 0)
        begin = time.monotonic()
        ablation_scores.score(self.generate(params, FULL, 0), self.scenes)
        return time.monotonic() - begin


@functools.cache
def _load_frozen(source: Path, model: ModelConfig, dtype: str) -> dict[str, Any]:
    return {name: checkpoint.load_network(source, name, model, dtype) for name in FROZEN}


def _initial_parameters(model: ModelConfig, source: Path | None) -> dict[int, dict[str, np.ndarray]]:
    """Parameters of the trained networks by seed, a checkpoint's or random; for a process of its own."""
    if source is not None:
        networks = {name: checkpoint.load_network(source, name, model, "float32") for name in TRAINED}
        return dict.fromkeys(SEEDS, jax.device_get(flat_networks(networks)))
    found = {seed: [small_networks.initial_parameters(name, model, seed) for name in TRAINED] for seed in SEEDS}
    return {seed: unet | pose_net for seed, (unet, pose_net) in found.items()}


def _make_scenes(plan: AblationPlan, numbers: range) -> list[dict[str, Any]]:
    return [plan.make(number) for number in numbers]
