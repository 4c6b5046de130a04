"""The paper's ablation on a card: nine trainings of equal length, as long as the time allows, and five rows per seed.

Hand enhancement and confidence take a training each, the fusion of windows belongs to sampling. All trainings share one
compiled step: what a variant changes are its inputs. Every row is written at once; another run goes on with those that
are missing.
"""

import contextlib
import dataclasses
import functools
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from card import ablation_scores, small_networks, small_scores
from card.ablation_page import row_name, write_page
from card.ablation_sizes import ABLATION_SIZES, SEEDS
from card.ablation_table import FULL, VARIANTS, Variant
from card.ablation_world import FIGURE_7, POSES, AblationPlan, variant_samples
from card.measuring import jax_peak
from card.results import Results, Row
from card.runner import DEADLINE, ROOT
from card.small_batches import EncodedWorld
from card.small_clock import Clock, train_by_clock
from card.small_files import VARIABLE, find_earlier, with_encoders, write_picture
from card.small_sizes import SmallSize
from card.small_world import Task, World, host_only
from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.inference.prefetch import prefetch
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import available_cores
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import FROZEN, TRAINED
from mimicmotion_jax.training.objective import Encoded
from mimicmotion_jax.training.state import TrainState, init_state
from mimicmotion_jax.training.template import Template, split_trainable

RUNS = "ABLATION_RUNS"
"""Environment variable: number of runs that share the work, 1 (the default), 3 or 9; so much longer is a training."""

_SHIPPED = ROOT / "mimicmotion_jax" / "weights" / "small"
_OWN_CORES = 4  # for compilation
_UNHURRIED = 3600.0  # seconds that a run has if nobody set an end
_WORLD_SEED, _TEST_SEED = 20261127, 20261128
_TIMED_STEPS = 10
_MARGIN = 1.05  # of the time that is planned
# Trainings in the order in which they are made; rows that need no training of their own follow the one they use.
_ORDER = sorted(VARIANTS.values(), key=lambda variant: (variant.hand_weight < FULL.hand_weight, variant.ticks[1] == ""))
_TRAININGS = len(SEEDS) * len({(variant.hand_weight, variant.confidence) for variant in _ORDER})


def train(results: Results, part: str, size: str) -> None:
    """Make the rows that are missing, as far as the time goes."""
    enable_compilation_cache()
    seconds = float(os.environ.get(DEADLINE) or time.time() + _UNHURRIED) - time.time()
    clock = Clock(seconds, ABLATION_SIZES[size].reserve)
    with small_networks.temporal_convolutions():
        ablation = Ablation(ABLATION_SIZES[size], clock)
        with contextlib.closing(ablation):
            results.row(part, "plan", functools.partial(_show_errors, ablation.plan))
            if "failed" in (plan := results.parts[part]["plan"]):
                return
            ablation.check(plan)
            for seed in SEEDS:
                videos = {}
                for variant in _ORDER:
                    make = functools.partial(ablation.row, variant, seed, plan["steps"], videos)
                    results.row(part, row_name(variant.name, seed), functools.partial(_show_errors, make))
                    write_page(results, part)
                if seed == SEEDS[0] and videos.keys() == VARIANTS.keys():
                    ablation.draw(videos, results.path.parent)


def fit_steps(seconds: float, step_seconds: float, runs: int) -> int:
    """Number of steps of each training, if one run has so many seconds for its share of all trainings."""
    return max(1, int(seconds / math.ceil(_TRAININGS / runs) / step_seconds / _MARGIN))


def _show_errors(function: Callable[[], Row]) -> Row:
    try:
        return function()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        raise


class Ablation:
    """Data, programs and networks of all rows. The constructor returns when everything is ready and timed.

    Args:
        size: sizes.
        clock: of the run.
    """

    def __init__(self, size: SmallSize, clock: Clock):
        self.size, self.clock = size, clock
        self._source = find_earlier(ROOT) if VARIABLE in os.environ else _SHIPPED
        self.model = with_encoders(size.model, checkpoint.read_config(self._source))
        self.config = _training(size.training(self.model, 0))
        self._trained: dict[tuple[float, str, int], tuple[dict[str, Any], list[dict[str, float]]]] = {}
        limit, workers = size.limit or 0, size.workers or max(1, available_cores() - _OWN_CORES)
        cells = (size.height // self.model.vae.downscale, size.width // self.model.vae.downscale)
        style = self.config.data.draw_style
        plan = AblationPlan(size.width, size.height, size.scene_frames, size.fps, cells, style, _WORLD_SEED)
        test = dataclasses.replace(
            plan, num_frames=size.test[1], fps=size.fps[:1], seed=_TEST_SEED, split="test", detector=FIGURE_7
        )
        with host_only():
            initial = Task.call(_initial_parameters, self.model)
            tasks = [Task.call(_make_scenes, test, range(n, size.test[0], 4)) for n in range(min(4, size.test[0]))]
            self.world = World(plan, limit, workers, limit)
        self.mesh = sharding.training_mesh(devices=jax.local_devices()[:1])
        self._template = Template(self.model, TRAINED)
        hurried = size.max_steps is not None
        together = (size.encode_scenes * size.scene_frames, size.height, size.width, 3)
        with ThreadPoolExecutor() as threads:
            compile_it = functools.partial(small_networks.compile_program, hurried=hurried)
            step = threads.submit(compile_it, small_networks.lower_step(self.config, self.mesh))
            encoding = threads.submit(compile_it, small_networks.lower_encode(self.model, together))
            self._initial = initial.result()
            self.scenes = [scene for task in tasks for scene in task.result()]
            clock.say("parameters and test sequences are there")
            score_seconds = self._time_scoring()
            self._step = step.result()
            clock.say(f"programs are compiled, {self.world.count} scenes are there; a row takes {score_seconds:.1f} s")
            self._encode = functools.partial(encoding.result(), *self._frozen("float32").values())
        self.world.wait(limit)
        vae, encoder = self.model.vae, self.model.image_encoder
        self.encoded = EncodedWorld(
            self.world, self._encode, vae.latent_channels, encoder.projection_dim, size.encode_scenes, limit
        )
        while self.encoded.advance(8):
            pass
        self.score_seconds, self.step_seconds = score_seconds, self._time_steps()
        clock.say(f"{self.encoded.count} scenes are encoded; a step takes {1e3 * self.step_seconds:.1f} ms")

    def plan(self) -> Row:
        """Fix the number of steps of all trainings, those of later runs included, and score what needs no training."""
        size, frames = self.size, np.stack([scene["frames"] for scene in self.scenes])
        chunks = frames.reshape(-1, size.encode_scenes * size.scene_frames, *frames.shape[2:])
        latents = np.concatenate([np.asarray(self._encode(chunk)[0]) for chunk in chunks])
        latents = latents.reshape(*frames.shape[:2], *latents.shape[1:])
        networks = self._networks(self._initial[0])
        decoded = small_scores.decode(self.model, networks, latents, self.config.trained_sampling)
        baselines = {"reference repeated": small_scores.repeat_first(self.scenes), "VAE alone": decoded}
        scores = {name: ablation_scores.score(videos, self.scenes) for name, videos in baselines.items()}
        runs = int(os.environ.get(RUNS, "1"))
        left = self.clock.training_end - time.monotonic() - len(SEEDS) * len(VARIANTS) / runs * self.score_seconds
        steps = fit_steps(left, self.step_seconds, runs)
        found = {name: np.stack([scene[name] for scene in self.scenes]) for name in ("mistaken", "hidden_elbow")}
        return {
            "steps": steps if size.max_steps is None else min(steps, size.max_steps),
            "step_ms": round(1e3 * self.step_seconds, 2),
            "score_s": round(self.score_seconds, 2),
            "clips": self.config.batch_size,
            "window": self.model.window_size,
            "scenes": self.encoded.count,
            "size": f"{size.width}x{size.height}",
            "parameters": sum(x.size for x in self._initial[0].values()),
            "vae": checkpoint.manifest_sha256(self._source)[:12],
            "test_set": {"sequences": len(frames), "frames": frames.shape[1]}
            | {name: round(float(values.mean()), 4) for name, values in found.items()},
            "baselines": scores,
        }

    def check(self, plan: Row) -> None:
        """Check that rows of an earlier run were made with the same VAE.

        Raises:
            ValueError: they were not.
        """
        if plan["vae"] != checkpoint.manifest_sha256(self._source)[:12]:
            raise ValueError(f"the rows that are there used the VAE of {plan['vae']}; name that one, or give --again")

    def row(self, variant: Variant, seed: int, steps: int, videos: dict[str, np.ndarray]) -> Row:
        """Train unless a row before has done that, generate the test sequences and score them.

        Args:
            variant: row of the table.
            seed: of parameters, data order and noise.
            steps: of the training.
            videos: the generated videos are added to these.
        """
        key = (variant.hand_weight, variant.confidence, seed)
        needed = self.score_seconds + (0 if key in self._trained else steps * self.step_seconds)
        if needed > self.clock.left:
            return {"missing": f"it takes {needed:.0f} s and {self.clock.left:.0f} are left; run it again to go on"}
        if key not in self._trained:
            self._trained[key] = self._train(variant, seed, steps)
        networks, history = self._trained[key]
        sampling = dataclasses.replace(self.config.trained_sampling, fusion=variant.fusion)
        videos[variant.name] = self._generate(networks, variant, seed)
        plan = sampling.plan(self.size.test[1], self.model.window_size)
        scores = ablation_scores.score(videos[variant.name], self.scenes, plan)
        row = {"name": variant.name, "seed": seed, "variant": dataclasses.asdict(variant), "scores": scores}
        return row | {"history": history} | jax_peak()

    def draw(self, videos: Mapping[str, np.ndarray], folder: Path) -> None:
        """Draw two pictures of a seed's videos, like the paper's figures 7 and 9."""
        ordered = {name: videos[name] for name in VARIANTS}
        write_picture(folder / "ablation-mistakes.png", ablation_scores.mistakes_strip(self.scenes, ordered))
        fused = {name: ordered[name] for name, variant in VARIANTS.items() if all(variant.ticks[:2])}
        write_picture(folder / "ablation-seams.png", ablation_scores.slices_strip(self.scenes, fused))

    def close(self) -> None:
        """End all processes."""
        self.world.close()

    def _train(self, variant: Variant, seed: int, steps: int) -> tuple[dict[str, Any], list[dict[str, float]]]:
        state, step = self._start(seed)
        name = row_name(variant.name, seed)
        batches, frames = self._batches(variant, seed), self.config.batch_size * self.model.window_size
        state, history = train_by_clock(
            name, state, step, batches, self.clock, math.inf, frames=frames, max_steps=steps
        )
        return self._networks(self._fixed(seed) | state.averaged_params), history

    def _start(self, seed: int) -> tuple[TrainState, Callable[[TrainState, Encoded], Any]]:
        params, fixed = self._initial[seed], self._fixed(seed)
        trained = {key: value for key, value in params.items() if key not in fixed}
        state = init_state(trained, self.config.optimizer, self.config.steps, self.mesh)
        fixed = jax.device_put(fixed, sharding.shard_parameters(self.mesh, fixed))
        return state, lambda state, batch: self._step(state, fixed, batch)

    def _fixed(self, seed: int) -> dict[str, Any]:
        params = self._initial[seed]
        return {key: params[key] for key in split_trainable(list(params), self.config.trainable)[1]}

    def _batches(self, variant: Variant, seed: int) -> Iterator[Encoded]:
        draw = variant_samples(self.encoded, self.config, variant, seed)
        return prefetch(self.encoded.batches(self.config, self.model.vae.scaling_factor, self.mesh, draw))

    def _time_steps(self) -> float:
        """Seconds of a step; the state is thrown away."""
        state, step = self._start(SEEDS[0])
        batches = self._batches(FULL, SEEDS[0])
        timed, warm = (_TIMED_STEPS, 3) if self.size.max_steps is None else (1, 1)
        for number in range(warm + timed):
            if number == warm:
                jax.block_until_ready(state)
                begin = time.monotonic()
            state, _ = step(state, next(batches))
        jax.block_until_ready(state)
        return (time.monotonic() - begin) / timed

    def _time_scoring(self) -> float:
        """Seconds of a row without its training; the programs are compiled before."""
        networks = self._networks(self._initial[SEEDS[0]])
        for variant in VARIANTS.values():
            if all(variant.ticks[:2]):
                self._generate(networks, variant, 0)
        begin = time.monotonic()
        ablation_scores.score(self._generate(networks, FULL, 0), self.scenes)
        return time.monotonic() - begin

    def _generate(self, networks: Mapping[str, Any], variant: Variant, seed: int) -> np.ndarray:
        sampling = dataclasses.replace(self.config.trained_sampling, fusion=variant.fusion)
        scenes = [{**scene, "poses": scene[POSES[variant.confidence]]} for scene in self.scenes]
        return small_scores.generate(self.model, networks, scenes, sampling, seed)

    def _networks(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All networks in the size's format; trained ones with these parameters."""
        cast = {key: jnp.asarray(value).astype(self.size.dtype) for key, value in params.items()}
        return self._template.networks(cast) | self._frozen(self.size.dtype)

    @functools.cache  # noqa: B019 - there is one object in a process
    def _frozen(self, dtype: str) -> dict[str, Any]:
        return {name: checkpoint.load_network(self._source, name, self.model, dtype) for name in FROZEN}


def _training(config: TrainConfig) -> TrainConfig:
    """Options with the paper's weight of hands."""
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, hand_weight=FULL.hand_weight))


def _initial_parameters(model: Any) -> dict[int, dict[str, np.ndarray]]:
    """Initial parameters of the trained networks by seed; for a process of its own."""
    found = {seed: [small_networks.initial_parameters(name, model, seed) for name in TRAINED] for seed in SEEDS}
    return {seed: unet | pose_net for seed, (unet, pose_net) in found.items()}


def _make_scenes(plan: AblationPlan, numbers: range) -> list[dict[str, Any]]:
    return [plan.make(number) for number in numbers]
