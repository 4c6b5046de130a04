"""A small model from disk, with what a benchmark needs to render videos of its size and to generate them."""

import dataclasses
from pathlib import Path

from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.inference.options import PipelineOptions, load_options
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class SmallModel:
    """A checkpoint that says its own width and height.

    Attributes:
        model: sizes of the networks.
        networks: in float32.
        options: the checkpoint's defaults.
        size: width and height of frames in pixels.
        cells: height and width of latents.
    """

    model: ModelConfig
    networks: dict[str, nnx.Module]
    options: PipelineOptions
    size: tuple[int, int]
    cells: tuple[int, int]


def load_small(path: Path = WEIGHTS) -> SmallModel:
    """Read a checkpoint, the default model of the package without a path."""
    model, options = checkpoint.read_config(path), load_options(path, cls=PipelineOptions)
    assert options.width is not None
    assert options.height is not None
    networks = {name: checkpoint.load_network(path, name, model, "float32") for name in NETWORKS}
    cells = (options.height // model.vae.downscale, options.width // model.vae.downscale)
    return SmallModel(model, networks, options, (options.width, options.height), cells)
