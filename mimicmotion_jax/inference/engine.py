"""The four networks on a mesh: prepared inputs to latents to frames, stage by stage (`stages`)."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8, UInt32
from tqdm import tqdm

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.diffusion.noise import frame_noise, pixel_noise
from mimicmotion_jax.diffusion.sampler import group_plan
from mimicmotion_jax.diffusion.solvers import MEMORY, latents_of, with_latents
from mimicmotion_jax.inference import stages
from mimicmotion_jax.inference.decoding import decode_in_chunks
from mimicmotion_jax.inference.execution import Executor, Lower, Program, Run
from mimicmotion_jax.inference.job import DrawnFrames
from mimicmotion_jax.inference.layout import Layout, lay_out
from mimicmotion_jax.inference.memory import MemoryPlan, Workload
from mimicmotion_jax.inference.progress import Progress, Saved
from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.encode import embed_image, encode_image
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import fetch, report_out_of_memory

logger = logging.getLogger(__name__)

_POSE_CHUNK = 16  # drawn poses per call of PoseNet

# As pixels it would look like a video that has merely turned out badly.
_NOT_FINITE = (
    "the result is not a number{}: the weights are damaged (fetch or convert them again), or an option such as "
    "guidance_scale is out of all proportion."
)

OnStepEnd = Callable[[int, float, jax.Array], jax.Array]
"""Called after a step with its number, timestep ln(sigma) / 4 and latents; returns the latents to go on with."""


class Networks(NamedTuple):
    """The four networks; with shapes in place of parameters they can be lowered, not run."""

    unet: UNet
    vae: VAE
    image_encoder: CLIPImageEncoder
    pose_net: PoseNet


class Batch(NamedTuple):
    """Inputs of videos of equal shape."""

    images: UInt8[np.ndarray, "b height width 3"]
    poses: Sequence[DrawnFrames]
    """Drawn skeletons [F, height, width, 3] of each, the reference's own first; drawn when they are needed."""
    seeds: UInt32[np.ndarray, " b"]
    latents: Float[np.ndarray, "*b f h w c"] | None = None
    """Initial latents, standard normal, repeated along time; None draws them from the seeds."""
    noise_aug: Float[np.ndarray, "*b height width 3"] | None = None
    """Noise on the reference image, standard normal, before it is scaled; None draws it from the seeds."""


class Steps(NamedTuple):
    """Course of the denoising loop on the host."""

    length: int
    """Most steps per call of the compiled loop."""
    earlier: Saved | None = None
    """State to go on from; None begins with noise."""
    step_end: Callable[[int, jax.Array], jax.Array] | None = None
    """Called after each call of the loop with the number of steps done and the state; returns the one to go on with."""
    progress: bool = False
    """Show bars."""


class Engine:
    """Runs generation on a mesh: every device holds the parameters, the windows of a video are spread over them.

    Args:
        config: sizes of the networks and the window size of the checkpoint.
        networks: on `mesh`.
        mesh: from `sharding.sampling_mesh`.
        executor: how stages are called.
    """

    def __init__(self, config: ModelConfig, networks: Networks, mesh: Mesh, executor: Executor | None = None):
        self.config, self.networks, self.mesh = config, networks, mesh
        self._executor: Executor = executor or Run()
        self._workload: Workload | None = None  # the last one
        self._memory = MemoryPlan()  # for it

    def denoise(
        self,
        batch: Batch,
        options: SamplingConfig,
        on_step_end: OnStepEnd | None = None,
        progress: bool = False,
        saved: Progress | None = None,
    ) -> Float[np.ndarray, "b f h w c"]:
        """Denoised latents of the videos, the reference's frame first.

        Args:
            batch: inputs.
            options: of sampling.
            on_step_end: called after every step.
            progress: show bars.
            saved: where the latents are saved from time to time; what is there already is not computed again.

        Raises:
            InputError: sizes that do not fit each other, too little memory, or latents that are not finite, at the
                step where they arise.
        """
        num_frames, steps, sampler = batch.poses[0].shape[0], options.num_steps, options.sampler
        earlier = None if saved is None else saved.load(steps)
        if earlier is not None and earlier.step == steps:
            return latents_of(sampler, earlier.latents)[:, :num_frames]
        length = 1 if on_step_end or saved or _varies(options) else _slice_length(steps)

        def step_end(step: int, state: jax.Array) -> jax.Array:
            if on_step_end:
                # A copy: the next step reuses the memory of its input.
                latents = jnp.copy(latents_of(sampler, state))
                timestep = float(np.log(options.sigmas[step - 1]) / 4)
                state = with_latents(sampler, state, jnp.asarray(on_step_end(step - 1, timestep, latents)))
            if not stages.all_finite(state):
                raise InputError(_NOT_FINITE.format(f" after step {step} of {steps}"))
            if saved is not None and (step == steps or options.whole_steps[step]):  # else features would be lost
                saved.save(step, steps, state)
            return state

        with self._memory_for("denoising", options, len(batch.images), *batch.poses[0].shape[:3]):
            latents = self._latents(batch, options, Steps(length, earlier, step_end, progress))
            return np.asarray(fetch(latents))[:, :num_frames]

    def decode(
        self,
        latents: Float[np.ndarray, "b f h w c"],
        options: SamplingConfig,
        progress: bool = False,
        saved: Progress | None = None,
    ) -> Iterator[Float[np.ndarray, "b n height width 3"]]:
        """Yield frames in [0, 1] in order, so that a long video never lies in memory whole.

        Each device decodes a chunk of each sample at a time, while the caller has the frames of the chunks before.

        Args:
            latents: from `denoise`.
            options: of sampling.
            progress: show a bar.
            saved: where frames are saved; what is there already is not decoded again.

        Raises:
            InputError: too little memory, or frames that are not finite.
        """
        size, overlap, first = options.decode_chunk_size, options.chunk_overlap, 0
        scale = self.config.vae.downscale
        shape = (*latents.shape[:2], scale * latents.shape[2], scale * latents.shape[3])
        bar = tqdm(total=latents.shape[1], desc="decoding", unit="frame", disable=not progress)
        with bar, self._memory_for("decoding", options, *shape):
            while saved is not None and (frames := saved.load_frames(first)) is not None:
                first += 1
                bar.update(frames.shape[1])
                yield frames
            chunks = decode_in_chunks(self._decode_chunks, latents, size, overlap, self.mesh.size, first)
            for number, frames in enumerate(chunks, first):
                if not np.isfinite(frames).all():
                    raise InputError(_NOT_FINITE.format(""))
                if saved is not None:
                    saved.save_frames(number, frames)
                bar.update(frames.shape[1])
                yield frames

    def lower(self, num_frames: int, height: int, width: int, options: SamplingConfig) -> dict[str, Program]:
        """Programs of the stages of one video, by name, for the devices of the mesh.

        It goes through the very calls of `denoise` and `decode`, with shapes in the place of arrays.
        """
        executor = Lower()
        engine = Engine(self.config, self.networks, self.mesh, executor)
        pixels = np.broadcast_to(np.uint8(0), (1 + num_frames, height, width, 3))
        whole = Steps(1 if _varies(options) else options.num_steps)
        with engine._memory_for("denoising", options, 1, *pixels.shape[:3]):
            latents = engine._latents(Batch(pixels[:1], [pixels], np.zeros(1, np.uint32)), options, whole)
        size = options.decode_chunk_size
        engine._decode_chunks(np.broadcast_to(np.float32(0), (self.mesh.size, size, *latents.shape[2:])))
        return executor.programs

    def _latents(self, batch: Batch, options: SamplingConfig, steps: "Steps") -> jax.Array:
        """Denoised latents [B, F, h, w, c] on the devices, frames padded as `Layout` says."""
        batch_size, num_frames, height, width = len(batch.images), *batch.poses[0].shape[:3]
        layouts = {
            guided: lay_out(self.mesh, self.config, options, batch_size, num_frames, height, width, guided)
            for guided in map(bool, options.guided_steps)
        }
        layout = next(iter(layouts.values()))  # they differ in their meshes
        with self._precision():
            self._load(*self.networks._fields)
            images = self._put(batch.images)
            context = self._executor.run(embed_image, self.networks.image_encoder, images)
            image_latents = self._encode_reference(images, batch, options.noise_aug_strength)
            features = self._pose_features(batch.poses, layout.num_frames, steps.progress)
            noise = self._initial_noise(batch, layout, image_latents.shape[1:], options.periodic_noise)
            self._load("unet", "pose_net")
            scales = options.guidance_scales(num_frames)
            scales = np.append(scales, np.repeat(scales[-1:], layout.num_frames - num_frames))
            state = self._denoise(noise, batch.seeds, context, image_latents, features, layouts, scales, options, steps)
            if MEMORY[options.sampler]:
                state = self._executor.run(stages.solved, state, solver=options.sampler)
            return state

    def _encode_reference(self, images: jax.Array, batch: Batch, strength: float) -> jax.Array:
        noise = batch.noise_aug
        if strength == 0:
            noise = np.zeros(images.shape, np.float32)
        elif noise is None:
            height, width, channels = images.shape[1:]
            seeds = self._put(batch.seeds)
            noise = self._executor.run(pixel_noise, seeds, height=height, width=width, channels=channels)
        else:
            noise = np.reshape(noise, images.shape)
        scaled = self._executor.run(stages.scale, self._put(noise), self._put(np.float32(strength)))
        return self._executor.run(encode_image, self.networks.vae, images, scaled)

    def _pose_features(self, poses: Sequence[DrawnFrames], padded: int, progress: bool) -> jax.Array:
        num_frames, height, width, _ = poses[0].shape
        scale = self.config.vae.downscale
        shape = (len(poses), padded, height // scale, width // scale, self.config.pose_net.stem_channels)
        features = self._executor.zeros(shape, self._dtype, sharding.replicated(self.mesh))
        chunk = min(_POSE_CHUNK, padded)
        with tqdm(total=num_frames, desc="poses", unit="frame", disable=not progress) as bar:
            for start in range(0, padded, chunk):
                start = min(start, padded - chunk)
                # Beyond the end the last pose is held: a short video is denoised in a whole window, as it was trained.
                last = min(start, num_frames - 1)
                pixels = np.stack([np.asarray(drawn[last : start + chunk]) for drawn in poses])
                pixels = np.concatenate([pixels, np.repeat(pixels[:, -1:], chunk - pixels.shape[1], axis=1)], axis=1)
                features = self._executor.run(
                    stages.add_pose_features, self.networks.pose_net, features, self._put(pixels), np.int32(start)
                )
                bar.update(min(start + chunk, num_frames) - bar.n)
        return features

    def _initial_noise(self, batch: Batch, layout: Layout, shape: tuple[int, ...], periodic: bool) -> Any:
        seeds, num_frames = batch.seeds, layout.num_frames
        if batch.latents is None:
            period = layout.plan.indices.shape[1] if periodic else None
            height, width, channels = shape
            sizes = {"num_frames": num_frames, "height": height, "width": width, "channels": channels}
            return self._executor.run(frame_noise, self._put(seeds), **sizes, period=period)
        noise = np.asarray(batch.latents, np.float32)
        noise = noise[None] if noise.ndim == 4 else noise
        if noise.ndim != 5 or noise.shape[2:] != tuple(shape) or len(noise) not in (1, len(seeds)):
            raise InputError(f"latents must be [frames, {', '.join(map(str, shape))}], not {list(noise.shape[1:])}.")
        noise = np.broadcast_to(noise, (len(seeds), *noise.shape[1:]))
        return noise[:, np.arange(num_frames) % noise.shape[1]]

    def _denoise(
        self,
        noise: jax.Array,
        seeds: UInt32[np.ndarray, " b"],
        context: jax.Array,
        image_latents: jax.Array,
        features: jax.Array,
        layouts: Mapping[bool, Layout],
        guidance_scales: Float[np.ndarray, " f"],
        options: SamplingConfig,
        steps: "Steps",
    ) -> jax.Array:
        """State of the solver after the last step; `layouts` are those of steps with and without guidance."""
        sigmas, num_steps, strengths = options.sigmas, options.num_steps, options.pose_strengths
        ids = np.array([options.fps - 1, options.motion_bucket_id, options.noise_aug_strength], np.float32)
        ids = self._put(np.tile(ids, (noise.shape[0], 1)))
        if options.image_strength != 1:
            context = self._executor.run(stages.scale, context, np.asarray(options.image_strength, context.dtype))

        # With cuDNN's attention all arrays of a program must lie on one mesh. The devices are the same ones: nothing is
        # copied.
        def put(tree: Any, guided: bool) -> Any:
            return self._executor.put(tree, sharding.replicated(layouts[guided].mesh))

        @functools.cache
        def constants(guided: bool) -> tuple[Any, ...]:
            layout = layouts[guided]
            window_size = layout.plan.indices.shape[1]
            sizes: dict[str, Any] = {"num_frames": window_size, "guided": guided}
            conditions = self._executor.run(stages.make_conditions, self.networks.unet, context, ids, **sizes)
            grouped = group_plan(layout.plan, layout.group, layout.capacity)
            return put((grouped, conditions, image_latents, features, guidance_scales), guided)

        noise = put(noise, bool(options.guided_steps[0]))
        latents = self._executor.run(stages.scale, noise, np.sqrt(sigmas[0] ** 2 + 1))
        state, first = latents, 0
        if MEMORY[options.sampler]:
            state = self._executor.run(stages.start_solver, latents, solver=options.sampler)
        if steps.earlier is not None:
            first, state = steps.earlier.step, self._put(steps.earlier.latents)
        # Without a cache all steps are whole.
        caches, whole, kept = options.cache_interval > 1, options.whole_steps, None
        bar = tqdm(total=num_steps, initial=first, desc="denoising", unit="step", disable=not steps.progress)
        with bar:
            for begin, end in _calls(_kinds(options), first, steps.length):
                guided, keep = bool(options.guided_steps[begin]), caches and bool(whole[begin])
                if keep:
                    kept = None  # their memory is free for the new ones
                levels = sigmas[begin : end + 1], sigmas[begin - 1] if begin else np.float32(np.inf)
                state, new = self._executor.run(
                    stages.run_denoising,
                    *put((self.networks.unet, self.networks.pose_net, state, *levels, strengths[begin:end]), guided),
                    *constants(guided),
                    *put((seeds, np.int32(begin)), guided),
                    kept,
                    guided=guided,
                    in_turn=guided and self._memory.in_turn,
                    solver=options.sampler,
                    mesh=layouts[guided].mesh,
                    depth=options.cache_depth if caches else 1,
                    keep=keep,
                )
                kept = new if keep else kept
                if steps.step_end is not None:
                    state = steps.step_end(end, state)
                bar.update(end - begin)
        return state

    @contextlib.contextmanager
    def _memory_for(
        self, stage: Literal["denoising", "decoding"], options: SamplingConfig, *size: int
    ) -> Iterator[None]:
        """Choose how to save memory; where none is left inside, say what would save more.

        Args:
            stage: of the work inside.
            options: of sampling.
            size: number of videos, frames, height and width in pixels.

        Raises:
            InputError: the memory does not suffice.
        """
        sizes = {
            name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(network))
            for name, network in self.networks._asdict().items()
        }
        workload = Workload(self.mesh, self.config, sizes, self._dtype.itemsize, options, *size)
        if workload != self._workload:
            self._workload, self._memory = workload, workload.plan()
            if self._memory != MemoryPlan():
                logger.info(workload.describe(self._memory))
        with report_out_of_memory(functools.partial(workload.advise, stage)):
            yield

    def _load(self, *names: str) -> None:
        """Have these networks on the devices, and no others where idle ones are to be in the host's memory."""
        for name, network in self.networks._asdict().items():
            if self._memory.unload and name not in names:
                self._executor.unload(network)
        for name in names:
            self._executor.load(getattr(self.networks, name), sharding.replicated(self.mesh))

    def _decode_chunks(self, chunks: Float[np.ndarray, "n t h w c"]) -> jax.Array:
        with self._precision():
            self._load("vae")
            apart = self._executor.put(chunks, sharding.by_window(self.mesh))
            return self._executor.run(stages.decode_chunks, self.networks.vae, apart, mesh=self.mesh)

    def _put(self, tree: Any) -> Any:
        return self._executor.put(tree, sharding.replicated(self.mesh))

    @property
    def _dtype(self) -> jnp.dtype:
        return self.networks.unet.conv_in.kernel.dtype

    def _precision(self) -> contextlib.AbstractContextManager:
        """float32 means float32: GPUs and TPUs would otherwise multiply in shorter formats."""
        return jax.default_matmul_precision("highest") if self._dtype == jnp.float32 else contextlib.nullcontext()


def _kinds(options: SamplingConfig) -> Int[np.ndarray, " steps"]:
    """Number that is equal for steps of one program: with guidance or without, the whole UNet or its last layers."""
    return options.guided_steps + 2 * options.whole_steps


def _varies(options: SamplingConfig) -> bool:
    """Return True if steps differ in their programs; then they are called one by one, for few shapes to compile."""
    return len(set(_kinds(options))) > 1


def _calls(kinds: Int[np.ndarray, " steps"], first: int, length: int) -> Iterator[tuple[int, int]]:
    """Steps `begin` to `end` of each call of the loop: at most `length`, all of one kind."""
    begin = first
    while begin < len(kinds):
        other = np.flatnonzero(kinds[begin : begin + length] != kinds[begin])
        end = begin + int(other[0]) if len(other) else min(begin + length, len(kinds))
        yield begin, end
        begin = end


def _slice_length(steps: int) -> int:
    """Largest divisor of `steps` that gives at least five slices: the host looks at the latents between them."""
    return max(n for n in range(1, max(steps // 5, 1) + 1) if steps % n == 0)
