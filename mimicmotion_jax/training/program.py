"""Programs of a training step, without data and weights: their FLOPs, and lowering them for any devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.flops import count_flops
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.encode import BY_FRAME, encode_pixels
from mimicmotion_jax.training.networks import FROZEN, TRAINED, check_shapes, kept_dtype, model_config
from mimicmotion_jax.training.objective import Encoded, Networks, draw, objective
from mimicmotion_jax.training.state import Params, abstract_state
from mimicmotion_jax.training.step import TEACHER, make_train_step
from mimicmotion_jax.training.template import Template, split_trainable


class Program(NamedTuple):
    """A lowered program, ready to be compiled."""

    lowered: jax.stages.Lowered
    resident_bytes: int
    """Bytes per device of arrays that stay in memory beside it."""


def forward_flops(config: TrainConfig, model: ModelConfig) -> float:
    """Count the FLOPs of UNet and PoseNet for one clip, forward only."""
    template = Template(model, TRAINED)
    params = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in template.shapes.items()}

    def forward(params: Params, batch: Encoded) -> jax.Array:
        draws = draw(config.objective, config.seed, batch.index, batch.latents.shape[1:])
        return objective(Networks(**template.networks(params)), batch, draws, config.objective)[0]

    return count_flops(forward, params, Encoded(**_abstract_batch(config, model, 1)))


def step_flops(config: TrainConfig, model: ModelConfig) -> float:
    """Count the FLOPs of a step for one clip: three forward passes (two with adapters), and those of a teacher."""
    distillation, passes = config.distillation, 3 if config.lora.rank is None else 2
    if distillation is not None:
        passes += 2 + (distillation.guidance_scale > 1)
    return passes * forward_flops(config, model)


def lower_programs(config: TrainConfig, mesh: Mesh) -> dict[str, Program]:
    """Trace and partition the programs of a step: `train_step`, and `encoding` unless encodings are stored.

    Args:
        config: of the run; neither its data nor its weights are read, only a checkpoint's sizes.
        mesh: for training; its devices may be those of a topology that is not present.

    Raises:
        InputError: a configuration that does not suit the mesh.
    """
    model = model_config(config)
    check_shapes(config, model, mesh)
    template = Template(model, TRAINED, config.lora)
    trained, fixed = split_trainable(list(template.shapes), config.trainable)
    state = abstract_state({key: template.shapes[key] for key in trained}, config.optimizer, config.steps, mesh)
    parameters = {
        key: _parameter(template.shapes[key], kept_dtype(config, key.partition(".")[0]), mesh) for key in fixed
    }
    if config.distillation is not None:
        parameters |= {TEACHER + key: _parameter(shape, config.dtype, mesh) for key, shape in template.shapes.items()}
    encoders = {
        name: jax.tree.map(lambda x: _parameter(x.shape, config.dtype, mesh), abstract_network(name, model))
        for name in FROZEN
    }
    resident = sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(encoders)
    )
    encoded = _abstract_batch(config, model, config.batch_size, mesh)
    train_step = make_train_step(config, template, mesh).lower(state, parameters, Encoded(**encoded))
    programs = {"train_step": Program(train_step, resident)}
    if not config.data.encodings:
        size = (config.data.height, config.data.width, 3)
        pixels = {"frames": (config.data.num_frames, *size), "reference": size}
        batch = {name: _array(name, (config.batch_size, *shape), jnp.uint8, mesh) for name, shape in pixels.items()}
        batch |= {name: encoded[name] for name in ("index", "poses", "hand_mask")}
        encoding = encode_pixels.lower(**encoders, batch=batch, config=config.objective, seed=config.seed, mesh=mesh)
        programs["encoding"] = Program(encoding, 0)
    return programs


def _abstract_batch(
    config: TrainConfig, model: ModelConfig, batch_size: int, mesh: Mesh | None = None
) -> dict[str, Any]:
    """Shapes, and with a mesh shardings, of the fields of an `Encoded` batch."""
    num_frames, height, width = config.data.num_frames, config.data.height, config.data.width
    h, w, channels = height // model.vae.downscale, width // model.vae.downscale, model.vae.latent_channels
    shapes = {
        "index": ((), jnp.uint32),
        "latents": ((num_frames, h, w, channels), jnp.float32),
        "image_latents": ((h, w, channels), jnp.float32),
        "context": ((model.unet.context_dim,), jnp.float32),
        "poses": ((num_frames, height, width, 3), jnp.uint8),
        "hand_mask": ((num_frames, h, w), jnp.bool_),
    }
    return {name: _array(name, (batch_size, *shape), dtype, mesh) for name, (shape, dtype) in shapes.items()}


def _array(name: str, shape: tuple[int, ...], dtype: Any, mesh: Mesh | None) -> jax.ShapeDtypeStruct:
    if mesh is None:
        return jax.ShapeDtypeStruct(shape, dtype)
    place = sharding.shard_frames(mesh) if name in BY_FRAME else sharding.shard_samples(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _parameter(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding.shard_parameter(mesh, shape))
