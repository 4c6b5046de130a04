"""The programs of a training step without their data: how much they compute, and what a compiler makes of them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.flops import count_flops
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.encode import BY_FRAME, encode_pixels
from mimicmotion_jax.training.networks import FROZEN, check_shapes, model_config
from mimicmotion_jax.training.objective import Encoded, draw, objective
from mimicmotion_jax.training.state import Template, abstract_state, split_trainable
from mimicmotion_jax.training.step import make_train_step
from mimicmotion_jax.xla_report import compile_report, topology_devices


def abstract_batch(config: TrainConfig, model: ModelConfig, batch_size: int, mesh: Mesh | None = None) -> Encoded:
    """Shapes, and with a mesh shardings, of an encoded batch."""
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
    return Encoded(**{name: _leaf(name, (batch_size, *shape), dtype, mesh) for name, (shape, dtype) in shapes.items()})


def forward_flops(config: TrainConfig, model: ModelConfig) -> float:
    """Floating-point operations of UNet and PoseNet for one clip, forward; a step takes three times as many."""
    template = Template(model)
    params = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in template.shapes.items()}

    def forward(params: dict[str, jax.Array], batch: Encoded) -> jax.Array:
        draws = draw(config.objective, config.seed, batch.index, batch.latents.shape[1:])
        return objective(template.networks(params), batch, draws, config.objective)[0]

    return count_flops(forward, params, abstract_batch(config, model, 1))


def lower_train_step(config: TrainConfig, mesh: Mesh) -> jax.stages.Lowered:
    """The training step, traced and partitioned for a mesh, of real devices or of a topology."""
    model = model_config(config)
    check_shapes(config, model, mesh)
    template = Template(model)
    trained, fixed = split_trainable(list(template.shapes), config.trainable)
    state = abstract_state({key: template.shapes[key] for key in trained}, config.optimizer, config.steps, mesh)
    frozen = {key: _parameter(template.shapes[key], jnp.float32, mesh) for key in fixed}
    batch = abstract_batch(config, model, config.batch_size, mesh)
    return make_train_step(config, template, mesh).lower(state, frozen, batch)


def lower_encoding(config: TrainConfig, mesh: Mesh) -> jax.stages.Lowered:
    """The encoding of a batch, likewise."""
    model = model_config(config)
    check_shapes(config, model, mesh)
    networks = {name: _abstract_frozen(name, config, model, mesh) for name in FROZEN}
    height, width = config.data.height, config.data.width
    encoded = abstract_batch(config, model, config.batch_size, mesh)
    clip = (config.batch_size, config.data.num_frames, height, width, 3)
    batch = {
        "frames": _leaf("frames", clip, jnp.uint8, mesh),
        "reference": _leaf("reference", (config.batch_size, height, width, 3), jnp.uint8, mesh),
        **{name: getattr(encoded, name) for name in ("index", "poses", "hand_mask")},
    }
    return encode_pixels.lower(**networks, batch=batch, config=config.objective, seed=config.seed, mesh=mesh)


def encoder_bytes(config: TrainConfig, mesh: Mesh) -> int:
    """Bytes per device of VAE and CLIP, which stay in memory beside the training step."""
    model = model_config(config)
    leaves = jax.tree.leaves([_abstract_frozen(name, config, model, mesh) for name in FROZEN])
    return sum(leaf.dtype.itemsize * int(jnp.prod(jnp.array(leaf.sharding.shard_shape(leaf.shape)))) for leaf in leaves)


def _abstract_frozen(name: str, config: TrainConfig, model: ModelConfig, mesh: Mesh) -> Any:
    return jax.tree.map(lambda x: _parameter(x.shape, jnp.dtype(config.dtype), mesh), abstract_network(name, model))


def _parameter(shape: tuple[int, ...], dtype: jnp.dtype, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.shard_parameter(mesh, shape))


def _leaf(name: str, shape: tuple[int, ...], dtype: jnp.dtype, mesh: Mesh | None) -> jax.ShapeDtypeStruct:
    if mesh is None:
        return jax.ShapeDtypeStruct(shape, dtype)
    by_frame = name in BY_FRAME
    place = sharding.shard_frames(mesh) if by_frame else sharding.shard_samples(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def compile_only(config: TrainConfig, topology: str | None = None) -> dict[str, Any]:
    """Compile the programs of a step and report what each takes, as plain dictionaries for JSON.

    Args:
        config: of the run; neither data nor checkpoint contents are read, only a checkpoint's sizes.
        topology: devices that need not be there, such as "v5p:2x2x2" or "a100:8"; None is the local devices.

    Raises:
        InputError: an unknown topology, or a configuration that does not fit it.
    """
    devices = None if topology is None else topology_devices(topology)
    mesh = sharding.training_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frames, devices)
    resident = encoder_bytes(config, mesh)
    programs = {"train_step": compile_report(lower_train_step(config, mesh), mesh, resident_bytes=resident)}
    if not config.data.encodings:
        programs["encoding"] = compile_report(lower_encoding(config, mesh), mesh)
    return {
        "topology": topology or mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "model_flops_per_sample": 3 * forward_flops(config, model_config(config)),
        **{name: report.to_json() for name, report in programs.items()},
    }
