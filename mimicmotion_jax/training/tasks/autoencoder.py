"""Training of a VAE on one device; what `mimicmotion train-vae` runs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array

from mimicmotion_jax import sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.initial import initial_params
from mimicmotion_jax.training.autoencoder.loss import autoencoder_loss, draw_noise
from mimicmotion_jax.training.autoencoder.outputs import Validation, export_encoders, measure_scaling_factor
from mimicmotion_jax.training.failures import log_failures
from mimicmotion_jax.training.metrics import MetricLog
from mimicmotion_jax.training.state import Metrics, Params, TrainState, apply_gradients
from mimicmotion_jax.training.template import Template

Batch = Mapping[str, Any]


class Autoencoder:
    """The task of `mimicmotion train-vae`; see `trainer.Task` for the methods.

    Args:
        config: of the run.
        progress: show bars.

    Raises:
        InputError: a mistake in the configuration or the data.
    """

    memory_advice = "lower batch_size, data.num_frames, data.width or data.height, or use a device with more memory"

    def __init__(self, config: VAETrainConfig, progress: bool = True):
        self.config, self.progress = config, progress
        self.mesh = sharding.training_mesh(devices=jax.local_devices()[:1])
        self.model = config.model(config.vae.scaling_factor)
        self.template = Template(self.model, ("vae",))
        self.shapes = self.template.shapes
        self.loader = ClipLoader(config.data, config.batch_size, config.seed, downscale=self.model.vae.downscale)
        self.validation = Validation(config, self.template)
        self._directory, self._validation_log = absolute_path(config.output), None
        self.train_step = make_vae_step(config, self.template)

    def identity(self) -> dict[str, Any]:
        """Sizes, and the seed that the exported image encoder is drawn from."""
        config = self.config
        return {"vae": to_dict(config.vae), "image_encoder": to_dict(config.image_encoder), "seed": config.seed}

    def load(self) -> Params:
        """Initialise the VAE."""
        return jax.tree.map(jnp.asarray, initial_params(self.model, self.config.seed))

    def next_batch(self) -> Batch:
        """Read the next batch."""
        batch = next(self.loader)
        return {key: batch[key] for key in ("index", "frames", "hand_mask")}

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Start a training step on the device."""
        return self.train_step(state, batch)

    def sample(self, state: TrainState, step: int) -> None:
        """Measure reconstructions (OUTPUT/validation) and draw some (OUTPUT/samples)."""
        with log_failures(f"reconstructions of step {step}", "set sample_every=null"):
            picture = self._directory / "samples" / f"step_{step:07d}.png"
            values = self.validation(state.averaged_params, picture)
            if self._validation_log is None:
                self._validation_log = MetricLog(self._directory / "validation", step - 1)
            self._validation_log.write(step, values)

    def export(self, state: TrainState) -> epath.Path:
        """Write OUTPUT/model: VAE and image encoder, with the scaling factor that the VAE's latents need."""
        last = int(state.step)
        if not self.config.sample_every or last % self.config.sample_every:
            self.sample(state, last)
        vae = self.template.networks(state.averaged_params)["vae"]
        scaling_factor = measure_scaling_factor(self.config, vae, self.progress)
        export_encoders(self._directory / "model", self.config, vae, scaling_factor)
        return self._directory / "model"

    def peak_steps_per_second(self) -> None:
        """Not known: nobody has counted this step's operations."""


def make_vae_step(
    config: VAETrainConfig, template: Template
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Make the jitted step (state, batch) -> (state, metrics); the state's memory is reused.

    The metrics are those of `autoencoder_loss` and `apply_gradients`.
    """

    def loss(params: Params, batch: Batch) -> tuple[Array, Metrics]:
        vae = template.networks(params)["vae"]
        hand_mask = batch["hand_mask"]
        noise = draw_noise(config.seed, batch["index"], (*hand_mask.shape[1:], vae.config.latent_channels))
        return autoencoder_loss(vae, batch["frames"], hand_mask, noise, config.loss)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        (value, parts), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch)
        state, metrics = apply_gradients(state, value, grads, config.optimizer, config.steps)
        return state, metrics | parts

    return jax.jit(step, donate_argnums=0)
