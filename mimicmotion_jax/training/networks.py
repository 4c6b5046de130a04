"""Networks of a run: their sizes, checks that data and devices suit them, and loading or initialising them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import pydantic
from flax import nnx
from jax.sharding import Mesh

from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.config import first_mistake
from mimicmotion_jax.data.dataset import read_info
from mimicmotion_jax.models.build import abstract_network, init_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig

TRAINED = ("unet", "pose_net")
FROZEN = ("vae", "image_encoder")


def model_config(config: TrainConfig) -> ModelConfig:
    """Sizes of the networks of a run; the window size is the length of its clips.

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
    """Check that frames fit the networks and that batches can be split over the mesh.

    Raises:
        InputError: a size, a number of frames or a batch that does not divide evenly.
    """
    height, width, multiple = config.data.height, config.data.width, model.size_multiple
    if height % multiple or width % multiple:
        raise InputError(
            f"data.height and data.width must be multiples of {multiple} for this model, not {height}x{width}."
        )
    shards = sharding.num_sample_shards(mesh)
    if config.batch_size % (shards * config.accumulation):
        raise InputError(
            f"batch_size={config.batch_size} in {config.accumulation} part(s) cannot be split evenly over data x fsdp "
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
    sharding.local_rows(mesh, config.batch_size)  # raises where hosts would need unequal shares


def check_sampling(config: TrainConfig, model: ModelConfig) -> None:
    """Check that the model can sample with `config.sampling`, during training and as exported.

    Raises:
        InputError: windows that this model cannot have.
    """
    try:
        config.sampling.plan(1, model.window_size)
    except InputError as error:
        raise InputError(f"sampling.{error}") from None


def check_teacher(config: TrainConfig, model: ModelConfig) -> None:
    """Check that a teacher, if there is one, has the student's networks and latents.

    Raises:
        InputError: no checkpoint to distil, or a teacher of another architecture.
    """
    if config.distillation is None:
        return
    if config.checkpoint is None or config.teacher is None:
        raise InputError("distillation needs a trained model to start from: set checkpoint=DIR.")
    teacher = dataclasses.replace(checkpoint.read_config(config.teacher), window_size=model.window_size)
    if teacher != model:
        raise InputError(
            f"distillation.teacher={config.teacher} is a model of other sizes than checkpoint={config.checkpoint}; "
            "teacher and student must have the same."
        )


def check_base(config: TrainConfig) -> None:
    """Check that adapters have a base.

    Raises:
        InputError: adapters of a network that would be initialised from the seed.
    """
    if config.lora.rank is not None and config.checkpoint is None:
        raise InputError("lora.rank trains adapters of a model; say of which one with checkpoint=DIR.")


def kept_dtype(config: TrainConfig, name: str) -> str:
    """Format in which the parameters of UNet or PoseNet are kept; those that adapters leave frozen may be short."""
    return config.lora.base_dtype if name == "unet" and config.lora.rank is not None else "float32"


def check_encodings(config: TrainConfig) -> None:
    """Check that stored encodings, if used, come from this run's encoders.

    With any others the networks would learn latents that the VAE of the samples and of the exported model does not
    decode.

    Raises:
        InputError: encodings of another checkpoint, or encoders that would be initialised from the seed.
    """
    if not config.data.encodings:
        return
    source = config.checkpoint or config.encoders
    if source is None:
        raise InputError(
            f"the encodings in {config.data.dataset} come from a checkpoint, but this run would initialise its "
            "encoders at random; set encoders to that checkpoint, or data.encodings=false."
        )
    stored = read_info(config.data.dataset).encodings
    if stored is None or stored.checkpoint != checkpoint.manifest_sha256(source):
        raise InputError(
            f"the encodings in {config.data.dataset} were not made with {source}; prepare the data again with "
            f"encode={source}, or set data.encodings=false."
        )


def load_networks(
    names: Iterable[str],
    source: str | None,
    model: ModelConfig,
    mesh: Mesh,
    *,
    seed: int,
    dtype: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Load networks from a checkpoint, or initialise them where there is none, sharded over a training mesh.

    Args:
        names: keys of `models.build.NETWORKS`.
        source: a checkpoint, local or gs://; None initialises.
        model: sizes.
        mesh: for training.
        seed: for the initialisation.
        dtype: of the parameters; None keeps the stored one, or float32.
        progress: show bars.

    Raises:
        InputError: a checkpoint that is damaged or does not hold these networks.
    """
    networks = {}
    for name in names:
        shapes = {key: x.shape for key, x in checkpoint.flat_params(nnx.state(abstract_network(name, model))).items()}
        place = {key: sharding.shard_parameter(mesh, shape) for key, shape in shapes.items()}.__getitem__
        if source is None:
            networks[name] = init_network(name, model, seed, jnp.dtype(dtype or "float32"), place)
        else:
            networks[name] = checkpoint.load_network(source, name, model, dtype, place, progress)
    return networks
