"""Our model's parts as functions that wait for the device: UNet, decode, generation, training."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from card.inputs import IDS, Inputs
from card.sizes import Size
from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.models.execution import Execution

Run = Callable[[], np.ndarray]
PARTS = ("unet", "decode", "generation", "training")


class Ours:
    """A pipeline and the inputs of its parts.

    Args:
        size: sizes.
        pipeline: with parameters in the dtype to compute in.
    """

    def __init__(self, size: Size, pipeline: MimicMotionPipeline):
        self.size, self.pipeline, self.inputs = size, pipeline, Inputs(size)

    def unet(self, execution: Execution | None = None) -> Run:
        """Predict both branches of guidance for one window in one denoising step."""
        step, arguments = self.unet_step(execution)
        return lambda: np.asarray(step(*arguments), np.float32)

    def unet_step(self, execution: Execution | None = None) -> tuple[Any, tuple[Any, ...]]:
        """Jitted step and its arguments, laid out like a single window in the denoising loop."""
        _, height, width, _ = self.size.latents
        pipeline = self.pipeline
        positions = height * width // pipeline.config.unet.downscale**2
        mesh = sharding.window_mesh(pipeline.mesh, 1, 2, self.size.frames, positions)
        laid = execution or sharding.sampling_execution(mesh)
        inputs = (self.inputs.sample, self.inputs.context, np.repeat(IDS, 2, axis=0))
        unet, given, *rest = jax.device_put((pipeline.unet, *inputs), sharding.replicated(mesh))
        both = jax.jit(lambda unet, context, ids: unet.conditions(context, ids, self.size.frames))(unet, *rest)
        step = jax.jit(lambda unet, sample, conditions: unet(sample, jnp.full(2, 0.3), conditions, None, laid))
        return step, (unet, given, both)

    def decode(self) -> Run:
        """Decode one chunk of latents per device."""
        vae, given = self.pipeline.vae, jax.device_put(self._chunks(), sharding.by_window(self.pipeline.mesh))
        execution = sharding.decoding_execution(self.pipeline.mesh)
        ours = jax.jit(lambda vae, latents: vae.decode(latents, execution))
        return lambda: np.asarray(ours(vae, given), np.float32)

    def generation(self) -> Run:
        """Generate frames from reference and poses."""
        given = {"noise": self.inputs.latents, "fusion": "official", "keep_reference_frame": True, "progress": False}
        given |= {"motion_kind": "skeletons", **self.size.options}
        return lambda: self.pipeline(self.inputs.image, self.inputs.poses, **given).frames

    def training(self, windows: int = 1) -> Run:
        """Compute all gradients of the mean square of the UNet's output, and return those of the first convolution."""
        step, params = self.gradients(windows)

        def run() -> np.ndarray:
            gradients = jax.block_until_ready(step(params))
            return np.asarray(gradients["conv_in"]["kernel"][...], np.float32)

        return run

    def gradients(self, windows: int = 1) -> tuple[Callable[[nnx.State], nnx.State], nnx.State]:
        """Function from parameters to the gradients of the loss, and the parameters.

        Args:
            windows: samples of the batch, 1 or 2.
        """
        graph, params = nnx.split(self.pipeline.unet)
        devices = self.pipeline.mesh.devices.flat
        data = math.gcd(len(devices), windows)
        mesh = sharding.training_mesh(data=data, fsdp=1, devices=devices[:data])
        execution = sharding.training_execution(mesh, remat=self.size.full)

        def loss(params: nnx.State, sample: jax.Array, context: jax.Array, ids: jax.Array) -> jax.Array:
            unet = nnx.merge(graph, params)
            conditions = unet.conditions(context, ids, self.size.frames)
            out = unet(sample, jnp.full(windows, 0.3), conditions, None, execution)
            return jnp.mean(jnp.square(out.astype(jnp.float32)))

        step = jax.jit(jax.grad(loss))
        given = (self.inputs.sample[:windows], self.inputs.context[:windows], np.repeat(IDS, windows, axis=0))
        given = jax.device_put(given, sharding.shard_samples(mesh))
        return lambda params: step(params, *given), jax.device_put(params, sharding.replicated(mesh))

    @property
    def precision(self) -> contextlib.AbstractContextManager:
        """float32 means float32: GPUs and TPUs would otherwise multiply in shorter formats."""
        exact = self.pipeline.unet.conv_in.kernel.dtype == jnp.float32
        return jax.default_matmul_precision("highest") if exact else contextlib.nullcontext()

    def _chunks(self) -> np.ndarray:
        latents = self.inputs.latents[: self.size.decode_chunk]
        return np.stack([latents * (1 + n / 10) for n in range(self.pipeline.mesh.size)])
