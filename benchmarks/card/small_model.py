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
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from card import small_networks, small_scores
from card.measuring import host_peak, jax_peak
from card.results import Results, Row
from card.runner import DEADLINE
from card.small_batches import VAE_FRAMES, EncodedWorld, vae_batches
from card.small_clock import Clock, train_by_clock
from card.small_files import export, find_earlier, pack, write_picture
from card.small_sizes import SMALL_SIZES, SmallSize
from card.small_world import Task, World, WorldPlan, host_only
from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.prefetch import prefetch
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.runtime.cpu_devices import available_cores
from mimicmotion_jax.training.export import manifest_source
from mimicmotion_jax.training.networks import FROZEN, TRAINED
from mimicmotion_jax.training.state import TrainState, init_state
from mimicmotion_jax.training.template import Template

_UNHURRIED = 120.0  # seconds that a run has if nobody set an end
_EXPORT_SECONDS = 120.0
_TEST_SEED = 20261126
_NEWEST = 1500  # scenes of the time before that UNet and PoseNet begin with
_ENCODE_GROUPS = 4  # per step, to keep up with the rendering


def train(results: Results, part: str, size: str) -> None:
    """Train, score and export; goes on from an earlier run."""
    results.parts.pop(part, None)
    seconds = float(os.environ.get(DEADLINE) or time.time() + _UNHURRIED) - time.time()
    clock = Clock(seconds, SMALL_SIZES[size].reserve)
    with small_networks.temporal_convolutions():
        model = SmallModel(SMALL_SIZES[size], results.path.parent, clock)
        with contextlib.closing(model):
            for name in ("vae", "unet", "scores"):
                results.row(part, name, functools.partial(_show_errors, getattr(model, name)))


def _show_errors(function: Callable[[], Row]) -> Row:
    try:
        return function()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        raise


class SmallModel:
    """The run: its data, programs and networks. The constructor starts the rendering and the compilation.

    Args:
        size: sizes.
        output: folder of results, for the parts of the checkpoint and the picture.
        clock: of the run.
    """

    def __init__(self, size: SmallSize, output: Path, clock: Clock):
        self.size, self.output, self.clock = size, output, clock
        self.folder = Path(tempfile.mkdtemp()) / "checkpoint"
        self.earlier, self.model, self.sources = find_earlier(output), size.model, []
        if self.earlier is not None:
            self._take_sizes(self.earlier)
        downscale, seed = self.model.vae.downscale, len(self.sources)
        self.config = size.training(self.model, seed)
        cells, style = (size.height // downscale, size.width // downscale), self.config.data.draw_style
        plan = WorldPlan(size.width, size.height, size.scene_frames, size.fps, cells, style, seed)
        test = dataclasses.replace(plan, num_frames=size.test[1], fps=size.fps[:1], seed=_TEST_SEED, split="test")
        first = [*TRAINED, *FROZEN] if self.earlier is None else []
        with host_only():
            self._initial = {
                name: Task.call(small_networks.initial_parameters, name, self.model, seed) for name in first
            }
            self.world = World(plan, size.capacity, size.workers or available_cores(), size.limit)
            tasks = [Task.call(_make_scenes, test, range(n, size.test[0], 4)) for n in range(min(4, size.test[0]))]
        self._threads, self._template = ThreadPoolExecutor(), Template(self.model, TRAINED)
        self._scenes = self._threads.submit(lambda: [scene for task in tasks for scene in task.result()])
        self.mesh = sharding.training_mesh(devices=jax.local_devices()[:1])
        self.vae_config = size.vae_training()
        # Traced here, one after the other; compiled in threads, at once.
        self._vae_step = None
        if self.earlier is None:
            lowered = small_networks.lower_vae_step(self.vae_config, size, self.mesh)
            self._vae_step = self._compile("step of the VAE", lowered)
        together = (size.encode_scenes * size.scene_frames, size.height, size.width, 3)
        self._encoding = self._compile("encoding", small_networks.lower_encode(self.model, together))
        self._step = self._compile("step of UNet and PoseNet", small_networks.lower_step(self.config, self.mesh))
        self.networks = {} if self.earlier is None else self._load(self.earlier, seed)
        self._last_export = time.monotonic()
        clock.say(f"{self.world.count} scenes are there, programs are being compiled")

    def vae(self) -> Row:
        """Train the VAE, unless an earlier run has done that."""
        if self._vae_step is None:
            return {"taken_from": [source["name"] for source in self.sources]}
        config, template = self.vae_config, Template(self.model, ("vae",))
        state = init_state(self._initial["vae"].result(), config.optimizer, config.steps, self.mesh)
        step = self._vae_step.result()
        self.world.wait(self.size.scenes_first)
        until = time.monotonic() + self.size.vae_share * (self.clock.training_end - time.monotonic())
        state, history = self._train(
            "VAE",
            state,
            step,
            vae_batches(self.world, config.batch_size, config.seed),
            until,
            frames=config.batch_size * VAE_FRAMES,
        )
        averaged = small_networks.round_to_float16(state.averaged_params)
        self.networks["vae"] = jax.device_get(template.networks(averaged)["vae"])
        self._note(f"VAE trained for {int(state.step)} steps of {config.batch_size} clips", "vae")
        return {"history": history, "scenes": self.world.count} | jax_peak()

    def unet(self) -> Row:
        """Train UNet and PoseNet on latents, and export everything on the way."""
        for name in self._initial.keys() - {"vae"}:
            self.networks |= Template(self.model, (name,)).networks(self._initial[name].result())
        encoded = self._encoded()
        scaling = self.model.vae.scaling_factor
        params, fixed = small_networks.split_parameters(self.networks, self.config)
        state = init_state(params, self.config.optimizer, self.config.steps, self.mesh)
        fixed = jax.device_put(fixed, sharding.shard_parameters(self.mesh, fixed))
        self._export()
        warm = threading.Thread(target=self._warm, name="warm", daemon=True)
        warm.start()
        program = self._step.result()

        def after_step(state: TrainState) -> None:
            encoded.advance(_ENCODE_GROUPS)
            if time.monotonic() - self._last_export > _EXPORT_SECONDS:
                self._keep(state, fixed)
                self._export()

        state, history = self._train(
            "UNet",
            state,
            lambda state, batch: program(state, fixed, batch),
            encoded.batches(self.config, scaling, self.mesh),
            self.clock.training_end,
            frames=self.config.batch_size * self.model.window_size,
            after_step=after_step,
        )
        self._keep(state, fixed)
        self._note(f"UNet and PoseNet trained for {int(state.step)} steps of {self.config.batch_size} clips", "unet")
        self._export()
        warm.join(timeout=max(0.0, self.clock.left - self.size.reserve / 2))
        return {"history": history, "scenes": self.world.count, "host_peak_GB": host_peak()} | jax_peak()

    def scores(self) -> Row:
        """Score what was exported, and draw some frames."""
        self.world.close()
        networks, scenes, sampling = self._read(self.folder, self.size.dtype), self._scenes.result(), self._sampling
        generated = small_scores.generate(self.model, networks, scenes, sampling)
        self.clock.say("generated")
        write_picture(self.output / "small-model.png", small_scores.strip(scenes[:6], generated[:6]))
        frames = np.stack([scene["frames"] for scene in scenes])
        chunks = frames.reshape(-1, self.size.encode_scenes * self.size.scene_frames, *frames.shape[2:])
        latents = np.concatenate([np.asarray(self._encode(chunk)[0]) for chunk in chunks])
        latents = latents.reshape(*frames.shape[:2], *latents.shape[1:])
        videos = {
            "generated": generated,
            "repeat": small_scores.repeat_first(scenes),
            "VAE": small_scores.decode(self.model, networks, latents, sampling),
        }
        found = {name: small_scores.score(video, scenes) for name, video in videos.items()}
        for name, scores in found.items():
            self.clock.say(f"{name}: {scores}")
        return found | {"sources": self.sources}

    @property
    def _sampling(self) -> SamplingConfig:
        return self.config.trained_sampling

    def close(self) -> None:
        """End all processes and remove the files that nobody asked for."""
        self.world.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _take_sizes(self, folder: Path) -> None:
        """Take the earlier VAE and image encoder; UNet and PoseNet as well if they have this run's sizes."""
        found = checkpoint.read_config(folder)
        self.sources = list(checkpoint.read_manifest(folder)["sources"])
        channels = found.vae.latent_channels
        unet = dataclasses.replace(self.model.unet, in_channels=2 * channels, out_channels=channels)
        self.model = dataclasses.replace(self.model, unet=unet, vae=found.vae, image_encoder=found.image_encoder)

    def _load(self, folder: Path, seed: int) -> dict[str, nnx.Module]:
        """Load the earlier networks into the host's memory; those of other sizes begin anew."""
        found = checkpoint.read_config(folder)
        same = found.unet == self.model.unet and found.pose_net == self.model.pose_net
        if not same:
            with host_only():
                self._initial = {
                    name: Task.call(small_networks.initial_parameters, name, self.model, seed) for name in TRAINED
                }
        self.clock.say(f"going on from {[source['name'] for source in self.sources]}")
        return jax.device_get(self._read(folder, "float32", NETWORKS if same else FROZEN))

    def _read(self, folder: Path, dtype: str, names: Any = NETWORKS) -> dict[str, nnx.Module]:
        return {name: checkpoint.load_network(folder, name, self.model, dtype) for name in names}

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
        return train_by_clock(name, state, step, prefetch(batches), self.clock, until, **options)

    def _encoded(self) -> EncodedWorld:
        """Encode the newest scenes, and measure the scaling factor of a new VAE's latents on them."""
        channels, width = self.model.vae.latent_channels, self.model.image_encoder.projection_dim
        self.world.wait(self.size.scenes_first)
        program, device = self._encoding.result(), jax.local_devices()[0]
        encoders = jax.device_put([self.networks[name] for name in FROZEN], device)
        self._encode = functools.partial(program, *encoders)
        encoded = EncodedWorld(self.world, self._encode, channels, width, self.size.encode_scenes, _NEWEST)
        begin = time.monotonic()
        while encoded.advance(8) and time.monotonic() - begin < 0.1 * self.clock.left:
            pass
        self.clock.say(f"encoded {encoded.count - encoded.kept()[0]} scenes in {time.monotonic() - begin:.1f} s")
        if self._vae_step is not None:
            places = np.arange(*encoded.kept())[:256] % self.world.capacity
            factor = float(1 / np.std(encoded.latents[places], dtype=np.float64))
            vae_config = dataclasses.replace(self.model.vae, scaling_factor=factor)
            self.model = dataclasses.replace(self.model, vae=vae_config)
            self.clock.say(f"scaling factor {factor:.4f}")
        return encoded

    def _keep(self, state: TrainState, fixed: Any) -> None:
        self.networks |= self._template.networks(jax.device_get(state.averaged_params | fixed))

    def _note(self, line: str, name: str) -> None:
        states = nnx.state(self.networks[name])
        self.sources = [*self.sources, manifest_source(line, states)]

    def _export(self) -> None:
        start = time.monotonic()
        export(self.folder, self.model, self.networks, self.config, self.sources)
        size = pack(self.folder, self.output)
        self._last_export = time.monotonic()
        self.clock.say(f"exported {size / 1e6:.1f} MB in {self._last_export - start:.1f} s")

    def _warm(self) -> None:
        """Compile the programs of the scores while the networks train."""
        try:
            networks = self._read(self.folder, self.size.dtype)
            small_scores.generate(self.model, networks, self._scenes.result(), self._sampling)
            self.clock.say("the programs of the scores are compiled")
        except Exception:
            traceback.print_exc(file=sys.stdout)


def _make_scenes(plan: WorldPlan, numbers: range) -> list[dict[str, Any]]:
    return [plan.make(number) for number in numbers]
