"""Which networks a run uses: sizes from the configuration or the checkpoint, and the frozen encoders."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pydantic
from flax import nnx
from jax.sharding import Mesh

from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.config import first_mistake
from mimicmotion_jax.data.dataset import read_info
from mimicmotion_jax.models.build import NETWORKS, abstract_network, init_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.state import TRAINED

FROZEN = tuple(name for name in NETWORKS if name not in TRAINED)


def model_config(config: TrainConfig) -> ModelConfig:
    """Sizes of the networks of this run; the window is the length of the clips it learns from.

    Raises:
        InputError: no such checkpoint, or encoders that do not fit the model.
    """
    if config.checkpoint is not None:
        model = checkpoint.read_config(config.checkpoint)
    elif isinstance(config.model, ModelConfig):
        model = config.model
    else:
        model = ModelConfig.tiny() if config.model == "tiny" else ModelConfig()
    if config.encoders is not None:
        found = checkpoint.read_config(config.encoders)
        try:
            model = dataclasses.replace(model, vae=found.vae, image_encoder=found.image_encoder)
        except pydantic.ValidationError as error:
            _, reason = first_mistake(error)
            raise InputError(f"the encoders in {config.encoders} do not fit the model: {reason}.") from None
    return dataclasses.replace(model, window_size=config.data.num_frames)


def check_shapes(config: TrainConfig, model: ModelConfig, mesh: Mesh) -> None:
    """See that pictures fit the networks and batches the mesh.

    Raises:
        InputError: a size, a number of frames or a batch that cannot be cut up as asked.
    """
    height, width, multiple = config.data.height, config.data.width, model.size_multiple
    if height % multiple or width % multiple:
        raise InputError(
            f"data.height and data.width must be multiples of {multiple} for this model, not {height}x{width}."
        )
    shards = sharding.num_sample_shards(mesh)
    if config.batch_size % (shards * config.accumulation):
        raise InputError(
            f"batch_size={config.batch_size} in {config.accumulation} part(s) cannot be spread evenly over data x fsdp "
            f"= {shards} devices; make batch_size a multiple of {shards * config.accumulation}, or change the mesh."
        )
    frames = mesh.shape[sharding.FRAMES]
    positions = (height // multiple) * (width // multiple)  # at the coarsest resolution
    if config.data.num_frames % frames or positions % frames:
        raise InputError(
            f"mesh.frames={frames} must divide both the {config.data.num_frames} frames of a clip and the {positions} "
            "positions at the UNet's coarsest resolution."
        )
    if frames > 1 and config.batch_size > shards * config.accumulation:
        # Two split axes merge into one without moving data only if the first is split to the last element.
        raise InputError(
            f"mesh.frames={frames} splits single samples over devices, which needs batch_size / accumulation = data x "
            f"fsdp = {shards}, not {config.batch_size // config.accumulation}; raise accumulation."
        )
    sharding.local_rows(mesh, config.batch_size)  # refuses what the hosts could not load


def check_sampling(config: TrainConfig, model: ModelConfig) -> None:
    """See that the samples on the way can be made as asked, and videos with the result, which keeps the options.

    Raises:
        InputError: windows that this model cannot have.
    """
    try:
        config.sampling.plan(1, model.window_size)
    except InputError as error:
        raise InputError(f"sampling.{error}") from None


def check_encodings(config: TrainConfig) -> None:
    """See that stored encodings, where they are used, are those of this run's encoders.

    With others the networks would learn from latents that the VAE beside them, in samples and in the exported model,
    does not decode.

    Raises:
        InputError: they are of another checkpoint, or the encoders would be drawn from the seed.
    """
    if not config.data.encodings:
        return
    source = config.checkpoint or config.encoders
    if source is None:
        raise InputError(
            f"the encodings in {config.data.dataset} are of a checkpoint, but this run would draw its encoders at "
            "random; set encoders to that checkpoint, or data.encodings=false."
        )
    stored = read_info(config.data.dataset).encodings
    if stored is None or stored.checkpoint != checkpoint.manifest_sha256(source):
        raise InputError(
            f"the encodings in {config.data.dataset} were not made with {source}; prepare the data again with "
            f"encode={source}, or set data.encodings=false."
        )


def load_frozen(
    config: TrainConfig, model: ModelConfig, mesh: Mesh, dtype: str | None, progress: bool = True
) -> dict[str, Any]:
    """VAE and CLIP by name, on the mesh; drawn from the seed where no checkpoint has them.

    Args:
        config: says where they come from.
        model: sizes.
        mesh: for training.
        dtype: cast to this; None keeps the stored one.
        progress: show a bar.
    """
    source = config.checkpoint or config.encoders
    networks = {}
    for name in FROZEN:
        graph, abstract = nnx.split(abstract_network(name, model))
        shapes = {key: x.shape for key, x in checkpoint.flat_params(abstract).items()}
        place = {key: sharding.shard_parameter(mesh, shape) for key, shape in shapes.items()}.__getitem__
        if source is None:
            networks[name] = init_network(name, model, config.seed, jnp.dtype(dtype or "float32"), place)
        else:
            show = progress and jax.process_index() == 0
            networks[name] = nnx.merge(graph, checkpoint.load_params(source, name, abstract, dtype, place, show))
    return networks
