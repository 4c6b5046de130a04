"""Export of a trained model as a checkpoint for `mimicmotion sample` and `mimicmotion convert`."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mimicmotion_jax import checkpoint
from mimicmotion_jax.config import to_dict, values_of
from mimicmotion_jax.convert.lora import write_lora
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.lora import LowRank
from mimicmotion_jax.pose.options import DrawOptions
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import FROZEN, load_networks
from mimicmotion_jax.video.image import target_size


def export_model(
    config: TrainConfig, model: ModelConfig, trained: Mapping[str, nnx.Module], step: int, mesh: Mesh
) -> epath.Path:
    """Write OUTPUT/model, a complete checkpoint in `config.export_dtype`; all processes call this together.

    Args:
        config: of the run.
        model: sizes.
        trained: UNet and PoseNet by name.
        step: number of steps that they were trained for.
        mesh: for training; VAE and CLIP are loaded onto it again, in the precision they are stored in.

    Returns:
        The checkpoint's folder.
    """
    directory, source = absolute_path(config.output) / "model", config.checkpoint or config.encoders
    encoders = load_networks(FROZEN, source, model, mesh, seed=config.seed)
    states = {name: nnx.state(network) for name, network in {**trained, **encoders}.items()}
    sources = [] if source is None else checkpoint.read_manifest(source)["sources"]
    checkpoint.save_checkpoint(
        directory,
        model,
        states,
        dtype=config.export_dtype,
        sources=[*sources, manifest_source(f"trained for {step} steps", *states.values())],
        sampling=sampling_options(config, model.size_multiple),
        overwrite=True,
        progress=jax.process_index() == 0,
    )
    return directory


def export_lora(
    config: TrainConfig, model: ModelConfig, params: Mapping[str, jax.Array], adapted: Sequence[str]
) -> epath.Path:
    """Write OUTPUT/lora, which PEFT and diffusers read, in `config.export_dtype`; all processes call this together.

    Args:
        config: of the run.
        model: sizes.
        params: of UNet and PoseNet, adapters included.
        adapted: layers of the UNet with an adapter.

    Returns:
        The LoRA's folder.
    """

    def gather(key: str) -> np.ndarray:
        return np.asarray(multihost_utils.process_allgather(params[key], tiled=True))

    assert config.lora.rank is not None
    scale = np.float32(config.lora.alpha / config.lora.rank)
    factors = {
        layer: LowRank(gather(f"unet.{layer}.lora.lora_a"), scale * gather(f"unet.{layer}.lora.lora_b"))
        for layer in adapted
    }
    names = [key for key in params if key.startswith("pose_net.")] if config.trainable else []
    directory = absolute_path(config.output) / "lora"
    pose_net = {key.removeprefix("pose_net."): gather(key) for key in names}
    write_lora(directory, factors, pose_net, model, dtype=config.export_dtype)
    return directory


def manifest_source(name: str, *states: nnx.State) -> dict[str, str | int]:
    """Describe trained or initialised weights for a manifest, as a file of weights is described.

    Encodings and resumed runs know a checkpoint by the hash of its manifest, so different weights need different ones.
    """
    digest, keys = hashlib.sha256(), 0
    for state in states:
        for key, value in checkpoint.flat_params(state).items():
            digest.update(key.encode())
            digest.update(np.asarray(multihost_utils.process_allgather(value, tiled=True)).tobytes())
            keys += 1
    return {"name": name, "sha256": digest.hexdigest(), "keys": keys}


def sampling_options(config: TrainConfig, size_multiple: int) -> dict[str, Any]:
    """Default options for sampling with the trained model: the size, drawing and conditions that it was trained with.

    A size that is the official rule's for its short side, such as 1024x576, is left to that rule, which chooses
    landscape or portrait by the reference image.
    """
    width, height, resolution = config.data.width, config.data.height, min(config.data.width, config.data.height)
    official = target_size(height, width, resolution, "auto", size_multiple)
    size = {"resolution": resolution} if official == (height, width) else {"width": width, "height": height}
    sampling = {name: value for name, value in to_dict(config.trained_sampling).items() if name != "seed"}
    return {**size, **values_of(DrawOptions, config.data), **sampling}
