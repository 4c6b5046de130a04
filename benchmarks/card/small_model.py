"""A small model of the synthetic world from nothing, by the clock: VAE, then UNet and PoseNet, scores, checkpoint.

Everything is in memory: worker processes render the world while the programs are compiled and the networks trained.
The checkpoint is written when the VAE is ready, every two minutes and at the end; another run goes on from it with new
people: the VAE is taken as it is, UNet and PoseNet are trained further.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from card import small_networks, small_scores
from card.measuring import host_peak, jax_peak
from card.results import Results, Row
from card.runner import DEADLINE
from card.small_batches import VAE_FRAMES, EncodedWorld, vae_batches
from card.small_clock import Clock, train_by_clock
from card.small_files import Weights, write_picture
from card.small_profile import profiled
from card.small_sizes import SMALL_SIZES, TICKS, SmallSize
from card.small_world import Task, World, WorldPlan, host_only
from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.inference.prefetch import prefetch
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import available_cores
from mimicmotion_jax.training.networks import FROZEN, TRAINED
from mimicmotion_jax.training.state import TrainState, init_state
from mimicmotion_jax.training.template import Template, flat_networks

_OWN_CORES = 4  # for compilation and batches; with renderers on every core the steps compiled for 81 and 160 s
_UNHURRIED = 120.0  # seconds that a run has if nobody set an end
_EXPORT_SECONDS = 120.0
_TEST_SEED = 20261126
_SCALING_SCENES = 64
_ENCODE_GROUPS = 4  # per step, to keep up with the rendering

VAE_SHARE = "SMALL_MODEL_VAE_SHARE"
"""Environment variable: share of the time for the VAE, in place of the size's; with it, any VAE is trained further."""

CYCLES = "SMALL_MODEL_CYCLES"
"""Environment variable: shares of the time for UNet and PoseNet at which the learning rate has fallen to zero and the
checkpoint is written, such as "0.7 1"; it goes on from half its peak."""

RESERVE = "SMALL_MODEL_RESERVE"
"""Environment variable: seconds kept for scores and export, in place of the size's."""


def train(results: Results, part: str, size: str) -> None:
    """Train, score and export; goes on from an earlier run."""
    enable_compilation_cache()
    results.parts.pop(part, None)
    seconds = float(os.environ.get(DEADLINE) or time.time() + _UNHURRIED) - time.time()
    clock = Clock(seconds, float(os.environ.get(RESERVE) or SMALL_SIZES[size].reserve))
    with small_networks.temporal_convolutions():
        model = SmallModel(SMALL_SIZES[size], results.path.parent, clock)
        with contextlib.closing(model):
            for name in ("vae", "unet", "scores"):
                results.row(part, name, getattr(model, name))


class SmallModel:
    """The run: its data, programs and networks. The constructor starts the rendering and the compilation.

    Args:
        size: sizes.
        output: folder of results, for the parts of the checkpoint and the picture.
        clock: of the run.

    Attributes:
        run: number of runs before, which scenes and draws depend on; programs do not, so that a cache has them.
    """

    def __init__(self, size: SmallSize, output: Path, clock: Clock):
        self.size, self.output, self.clock = size, output, clock
        self.weights = Weights(size.model, output)
        model, self.run = self.weights.model, len(self.weights.sources)
        self.config = size.training(model, 0)
        cells = (size.height // model.vae.downscale, size.width // model.vae.downscale)
        style = self.config.data.draw_style
        plan = WorldPlan(size.width, size.height, size.scene_frames, size.fps, cells, style, self.run, movement="free")
        test = dataclasses.replace(plan, num_frames=size.test[1], fps=size.fps[:1], seed=_TEST_SEED, split="test")
        with host_only():
            self._initial = {
                name: Task.call(small_networks.initial_parameters, name, model, self.run)
                for name in self.weights.missing()
            }
            self.world = World(plan, size.capacity, size.workers or max(1, available_cores() - _OWN_CORES), size.limit)
            tasks = [Task.call(_make_scenes, test, range(n, size.test[0], 4)) for n in range(min(4, size.test[0]))]
        self._threads, self._template = ThreadPoolExecutor(), Template(model, TRAINED)
        self._scenes = self._threads.submit(lambda: [scene for task in tasks for scene in task.result()])
        self.mesh = sharding.training_mesh(devices=jax.local_devices()[:1])
        self.vae_config = size.vae_training()
        # Traced here, one after the other; compiled in threads, at once.
        self._vae_step = None
        if "vae" in self._initial or VAE_SHARE in os.environ:
            lowered = small_networks.lower_vae_step(self.vae_config, size, self.mesh)
            self._vae_step = self._compile("step of the VAE", lowered)
        together = (size.encode_scenes * size.scene_frames, size.height, size.width, 3)
        self._encoding = self._compile("encoding", small_networks.lower_encode(model, together))
        self._step = self._compile("step of UNet and PoseNet", small_networks.lower_step(self.config, self.mesh))
        self.weights.load()
        if sources := self.weights.sources:
            clock.say(f"going on from {[source['name'] for source in sources]}")
        self._last_export = time.monotonic()
        clock.say(f"{self.world.count} scenes are there, programs are being compiled")

    def vae(self) -> Row:
        """Train the VAE, unless an earlier run has done that."""
        if self._vae_step is None:
            return {"taken_from": [source["name"] for source in self.weights.sources]}
        config = self.vae_config
        task = self._initial.get("vae")
        params = flat_networks({"vae": self.weights.networks["vae"]}) if task is None else task.result()
        state = init_state(params, config.optimizer, config.steps, self.mesh)
        step = self._vae_step.result()
        self.world.wait(self.size.scenes_first)
        share = float(os.environ.get(VAE_SHARE) or self.size.vae_share)
        until = time.monotonic() + share * (self.clock.training_end - time.monotonic())
        state, history = self._train(
            "VAE",
            state,
            profiled("VAE", step, step),
            prefetch(vae_batches(self.world, config.batch_size, self.run)),
            until,
            frames=config.batch_size * VAE_FRAMES,
        )
        self.weights.fill(small_networks.round_to_float16(state.averaged_params), "vae")
        line = f"VAE trained for {int(state.step)} steps of {config.batch_size} clips"
        self.weights.sources.append(self.weights.note(line, "vae"))
        return {"history": history, "scenes": self.world.count} | jax_peak()

    def unet(self) -> Row:
        """Train UNet and PoseNet on latents, and export everything on the way."""
        for name in self._initial.keys() - {"vae"}:
            self.weights.fill(self._initial[name].result(), name)
        if self._vae_step is not None:
            self._measure_scaling_factor(self._encoded(_SCALING_SCENES))
        model = self.weights.model
        params, fixed = small_networks.split_parameters(self.weights.networks, self.config)
        state = init_state(params, self.config.optimizer, self.config.steps, self.mesh)
        fixed = jax.device_put(fixed, sharding.shard_parameters(self.mesh, fixed))
        self._export()
        program, encoded = self._step.result(), self._encoded(self.size.capacity)

        def after_step(state: TrainState) -> None:
            encoded.advance(_ENCODE_GROUPS)
            if time.monotonic() - self._last_export > _EXPORT_SECONDS:
                self._export(state, fixed)

        step = profiled("UNet", lambda state, batch: program(state, fixed, batch), program)
        batches = prefetch(encoded.batches(self.config, model.vae.scaling_factor, self.mesh, self.run))
        begin, history = time.monotonic(), []
        for number, share in enumerate(map(float, os.environ.get(CYCLES, "1").split())):
            state, lines = self._train(
                "UNet",
                state,
                step,
                batches,
                begin + share * (self.clock.training_end - begin),
                first_tick=number and TICKS // 2,
                frames=self.config.batch_size * model.window_size,
                after_step=after_step,
            )
            history += [{"cycle": number + 1} | line for line in lines]
            self._export(state, fixed)
        return {"history": history, "scenes": self.world.count, "host_peak_GB": host_peak()} | jax_peak()

    def scores(self) -> Row:
        """Score what was exported, and draw some frames."""
        self.world.close()
        networks, model = self.weights.exported(self.size.dtype), self.weights.model
        scenes, sampling = self._scenes.result(), self.config.trained_sampling
        generated = small_scores.generate(model, networks, scenes, sampling)
        self.clock.say("generated")
        write_picture(self.output / "small-model.png", small_scores.strip(scenes[:6], generated[:6]))
        frames = np.stack([scene["frames"] for scene in scenes])
        chunks = frames.reshape(-1, self.size.encode_scenes * self.size.scene_frames, *frames.shape[2:])
        latents = np.concatenate([np.asarray(self._encode(chunk)[0]) for chunk in chunks])
        latents = latents.reshape(*frames.shape[:2], *latents.shape[1:])
        videos = {
            "generated": generated,
            "repeat": small_scores.repeat_first(scenes),
            "VAE": small_scores.decode(model, networks, latents, sampling),
        }
        found = {name: small_scores.score(video, scenes) for name, video in videos.items()}
        for name, scores in found.items():
            self.clock.say(f"{name}: {scores}")
        return found | {"manifest": checkpoint.read_manifest(self.weights.folder)}

    def close(self) -> None:
        """End all processes and remove the files that nobody asked for."""
        self.world.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self.weights.folder.parent, ignore_errors=True)

    def _compile(self, name: str, lowered: jax.stages.Lowered) -> Future[jax.stages.Compiled]:
        def compile_it() -> jax.stages.Compiled:
            start = time.monotonic()
            compiled = small_networks.compile_program(lowered, hurried=self.size.max_steps is not None)
            self.clock.say(f"compiled the {name} in {time.monotonic() - start:.0f} s")
            return compiled

        return self._threads.submit(compile_it)

    def _train(
        self, name: str, state: TrainState, step: Any, batches: Iterator[Any], until: float, **options: Any
    ) -> tuple[TrainState, list[dict[str, float]]]:
        def about() -> str:
            return f", {self.world.count} scenes"

        options |= {"max_steps": self.size.max_steps, "about": about}
        return train_by_clock(name, state, step, batches, self.clock, until, **options)

    def _encoded(self, newest: int) -> EncodedWorld:
        """Encode the newest scenes."""
        model, networks = self.weights.model, self.weights.networks
        encoders = jax.device_put([networks[name] for name in FROZEN], jax.local_devices()[0])
        self._encode = functools.partial(self._encoding.result(), *encoders)
        self.world.wait(self.size.scenes_first)
        channels, width = model.vae.latent_channels, model.image_encoder.projection_dim
        encoded = EncodedWorld(self.world, self._encode, channels, width, self.size.encode_scenes, newest)
        begin = time.monotonic()
        while encoded.advance(8) and time.monotonic() - begin < 0.1 * self.clock.left:
            pass
        self.clock.say(f"encoded {encoded.count - encoded.kept()[0]} scenes in {time.monotonic() - begin:.1f} s")
        return encoded

    def _measure_scaling_factor(self, encoded: EncodedWorld) -> None:
        """Give latents a standard deviation of 1, as `mimicmotion train-vae` does."""
        places = np.arange(*encoded.kept()) % self.world.capacity
        factor = float(1 / np.std(encoded.latents[places], dtype=np.float64))
        model = self.weights.model
        self.weights.model = dataclasses.replace(model, vae=dataclasses.replace(model.vae, scaling_factor=factor))
        self.clock.say(f"scaling factor {factor:.4f}")

    def _export(self, state: TrainState | None = None, fixed: Any = None) -> None:
        """Write the checkpoint, with the averaged parameters of a state."""
        start = time.monotonic()
        if state is not None:
            self.weights.networks |= self._template.networks(jax.device_get(state.averaged_params | fixed))
            steps, clips = int(state.step), self.config.batch_size
            self.weights.trained = f"UNet and PoseNet trained for {steps} steps of {clips} clips"
        size = self.weights.export(self.config)
        self._last_export = time.monotonic()
        self.clock.say(f"exported {size / 1e6:.1f} MB in {self._last_export - start:.1f} s")


def _make_scenes(plan: WorldPlan, numbers: range) -> list[dict[str, Any]]:
    return [plan.make(number) for number in numbers]
