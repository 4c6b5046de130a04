"""Networks of the small model and their programs: initialised on the CPU, compiled ahead of their training."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from card.candidates import LAYERS
from card.small_batches import VAE_FRAMES
from card.small_sizes import SmallSize
from mimicmotion_jax.models.build import abstract_network, init_network
from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.encode import embed_image, encode_image
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.initial import initial_params
from mimicmotion_jax.training.autoencoder.loss import autoencoder_loss, draw_noise
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import FROZEN, TRAINED
from mimicmotion_jax.training.program import lower_programs
from mimicmotion_jax.training.state import Metrics, Params, TrainState, abstract_state, apply_gradients
from mimicmotion_jax.training.template import Template, flat_networks, split_trainable

_HURRIED: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compile_program(lowered: jax.stages.Lowered, *, hurried: bool = False) -> jax.stages.Compiled:
    """Compile a training step; `hurried` saves time on a CPU if it runs only a few times."""
    return lowered.compile(compiler_options=_HURRIED if hurried and jax.default_backend() == "cpu" else None)


def temporal_convolutions(way: str = "one 2-D convolution") -> contextlib.AbstractContextManager[Any]:
    """Context of tracing in which all temporal convolutions are computed in one way on a GPU.

    Those of the VAE by themselves, a convolution per pixel, were only ever run forwards on a card.

    Args:
        way: last words of a candidate's name.
    """
    if jax.default_backend() != "gpu":
        return contextlib.nullcontext()
    return LAYERS[f"temporal convolution as {way}"].patch()


def initial_parameters(name: str, model: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Initialise a network as the training commands do; for a process of its own, which compiles for the CPU."""
    params = initial_params(model, seed) if name == "vae" else flat_networks({name: init_network(name, model, seed)})
    return jax.device_get(params)


def lower_vae_step(config: VAETrainConfig, size: SmallSize, mesh: Mesh) -> jax.stages.Lowered:
    """Lower the step (state, batch) -> (state, metrics) of `mimicmotion train-vae`, in the size's format."""
    model = size.model
    template, downscale = Template(model, ("vae",)), model.vae.downscale
    cells = (size.height // downscale, size.width // downscale)

    def loss(params: Params, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        vae = template.networks({key: value.astype(size.dtype) for key, value in params.items()})["vae"]
        shape = (VAE_FRAMES, *cells, model.vae.latent_channels)
        noise = draw_noise(config.seed, batch["index"], shape)
        return autoencoder_loss(vae, batch["frames"], batch["hand_mask"], noise, config.loss)

    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, Metrics]:
        (value, parts), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch)
        state, metrics = apply_gradients(state, value, grads, config.optimizer, config.steps)
        return state, metrics | parts

    state = abstract_state(template.shapes, config.optimizer, config.steps, mesh)
    clips = (config.batch_size, VAE_FRAMES)
    batch = {
        "index": jax.ShapeDtypeStruct(clips[:1], jnp.uint32),
        "frames": jax.ShapeDtypeStruct((*clips, size.height, size.width, 3), jnp.uint8),
        "hand_mask": jax.ShapeDtypeStruct((*clips, *cells), jnp.bool_),
    }
    # XLA takes a kernel's gradient over clips of three frames for a convolution whose kernel is the whole picture.
    with temporal_convolutions("one product"):
        return jax.jit(step, donate_argnums=0).lower(state, batch)


def lower_step(config: TrainConfig, mesh: Mesh) -> jax.stages.Lowered:
    """Lower the step (state, fixed parameters, batch) -> (state, metrics) of `mimicmotion train`."""
    return lower_programs(config, mesh)["train_step"].lowered


def split_parameters(networks: Mapping[str, nnx.Module], config: TrainConfig) -> tuple[Params, Params]:
    """Parameters of UNet and PoseNet that are trained, and those that are not."""
    params = flat_networks({name: networks[name] for name in TRAINED})
    trained, fixed = split_trainable(list(params), config.trainable)
    return {key: params[key] for key in trained}, {key: params[key] for key in fixed}


def lower_encode(model: ModelConfig, frames: tuple[int, ...]) -> jax.stages.Lowered:
    """Lower the encoding (VAE, image encoder, frames) -> (latents as in a dataset: float16, not scaled; embeddings).

    Args:
        model: sizes.
        frames: shape [n, height, width, 3].
    """
    networks = (abstract_network(name, model) for name in FROZEN)
    return jax.jit(_encode).lower(*networks, jax.ShapeDtypeStruct(frames, jnp.uint8))


def _encode(vae: VAE, image_encoder: CLIPImageEncoder, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    latents = encode_image(vae, frames, jnp.zeros(frames.shape))
    return latents.astype(jnp.float16), embed_image(image_encoder, frames).astype(jnp.float32)


def round_to_float16(params: Params) -> Params:
    """Round parameters to the format in which they are exported."""
    return jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.float16).astype(jnp.float32), params)
