"""One step of the VAE's training, and how its parameters become a network."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.build import abstract_network, init_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.loss import Metrics, autoencoder_loss, draw_noise
from mimicmotion_jax.training.state import Params, TrainState
from mimicmotion_jax.training.update import make_update

_INITIAL_LOGVAR = -4.0

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


def initial_params(model: ModelConfig, seed: int) -> Params:
    """The VAE's parameters as its layers draw them, but that pictures pass through at first.

    The residual branches start at zero, the convolutions that halve and double pictures as average and identity, and
    the noise on the latents is small: what is left is nearly linear, so that colours and outlines are learned within
    tens of steps instead of hundreds. The last convolution, over frames, starts as the identity as well.
    """
    params = checkpoint.flat_params(nnx.state(init_network("vae", model, seed)))
    channels = model.vae.latent_channels
    for key, value in params.items():
        if key == "decoder.time_conv_out.kernel":
            params[key] = jnp.zeros_like(value).at[1].set(jnp.eye(value.shape[-1]))
        elif key.endswith("conv2.kernel"):
            params[key] = jnp.zeros_like(value)
        elif "samplers" in key and value.ndim == 4:
            params[key] = _passing(value.shape, average="downsamplers" in key)
    params["quant_conv.kernel"] = params["quant_conv.kernel"].at[..., channels:].set(0)
    params["quant_conv.bias"] = params["quant_conv.bias"].at[channels:].set(_INITIAL_LOGVAR)
    return params


def _passing(shape: tuple[int, ...], average: bool) -> Array:
    """The kernel [3, 3, c, c] of an identity, or of the average over the 2 x 2 pixels that become one."""
    taps = jnp.zeros((3, 3)).at[:2, :2].set(0.25) if average else jnp.zeros((3, 3)).at[1, 1].set(1)
    return taps[:, :, None, None] * jnp.eye(shape[2])


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
