"""One step of the VAE's training, and how its parameters become a network."""

from collections.abc import Callable, Mapping

import jax
from flax import nnx
from jaxtyping import Array

from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.loss import Metrics, autoencoder_loss, draw_noise
from mimicmotion_jax.training.state import Params, TrainState
from mimicmotion_jax.training.update import make_update

Step = Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Metrics]]


class VAETemplate:
    """The VAE without its parameters: names and shapes, and how parameters become the network."""

    def __init__(self, model: ModelConfig):
        self.config = model.vae
        self._graph, abstract = nnx.split(abstract_network("vae", model))
        self._variables = {".".join(map(str, path)): (path, v) for path, v in nnx.to_flat_state(abstract)}
        self.shapes = {key: tuple(v.get_value().shape) for key, (_, v) in self._variables.items()}

    def network(self, params: Params) -> VAE:
        """The VAE with these parameters, all of them."""
        leaves = [(path, variable.replace(params[key])) for key, (path, variable) in self._variables.items()]
        return nnx.merge(self._graph, nnx.from_flat_state(leaves))


def make_vae_step(config: VAETrainConfig, template: VAETemplate) -> Step:
    """The jitted step (state, batch) -> (state, metrics); the state's memory is reused.

    Metrics: those of `autoencoder_loss` and of `make_update`.
    """
    update = make_update(config.optimizer, config.steps)

    def loss_of(params: Params, batch: Mapping[str, Array]) -> tuple[Array, Metrics]:
        hand_mask = batch["hand_mask"]
        shape = (*hand_mask.shape[1:], template.config.latent_channels)
        noise = draw_noise(config.seed, batch["index"], shape)
        return autoencoder_loss(template.network(params), batch["frames"], hand_mask, noise, config.loss)

    def step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        (loss, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params, batch)
        state, metrics = update(state, loss, grads)
        return state, metrics | parts

    return jax.jit(step, donate_argnums=0)
