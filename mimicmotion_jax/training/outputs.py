"""What a run gives: sample videos on the way, and at the end a checkpoint for `sample.py` and `convert_weights.py`."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.config import to_dict, values_of
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.options import DrawOptions
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import load_frozen
from mimicmotion_jax.training.state import Params, Template, TrainState
from mimicmotion_jax.training.stepping import log_failures
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.image import target_size
from mimicmotion_jax.video.provenance import provenance

_FPS = 8


def best_params(state: TrainState, frozen: Params) -> Params:
    """All parameters of UNet and PoseNet, averaged where averages are kept."""
    return (state.ema or state.params) | frozen


class Sampler:
    """Makes the same few videos from ever better parameters: reference, skeleton, result and the true clip in a row.

    Args:
        config: of the run.
        model: sizes.
        template: of the trained networks.
    """

    def __init__(self, config: TrainConfig, model: ModelConfig, template: Template):
        self._config, self._model, self._template = config, model, template
        # With the reference in frame 0, as the pipeline wants its poses.
        num_frames = config.data.num_frames + (0 if config.data.reference_slot else 1)
        data = dataclasses.replace(
            config.data, encodings=False, reference_slot=True, num_frames=num_frames, num_workers=0, flip=False
        )
        loader = ClipLoader(data, config.num_samples, config.seed + 1, downscale=model.vae.downscale)
        self._batch = next(loader)
        loader.close()

    def __call__(self, step: int, params: Params, frozen_networks: dict[str, Any], directory: epath.Path) -> None:
        """Write DIRECTORY/step_STEP_N.mp4. All processes call this; the first one generates.

        Where memory or disk do not suffice, that is logged.

        Raises:
            jax.errors.JaxRuntimeError: with several processes, memory does not suffice to gather the parameters.
        """
        tolerance = log_failures(f"samples of step {step}", _LESS_MEMORY)
        trees, dtype = (params, frozen_networks), jnp.dtype(self._config.dtype)
        if jax.process_count() == 1:
            with tolerance:
                self._make(step, *_on_one_device(trees, dtype), directory)
            return
        gathered = _on_one_device(trees, dtype)  # by all together: where it fails for one, none can go on
        if jax.process_index() == 0:
            with tolerance:
                self._make(step, *gathered, directory)

    def _make(self, step: int, params: Params, frozen_networks: dict[str, Any], directory: epath.Path) -> None:
        pipeline = MimicMotionPipeline(
            self._model, **self._template.networks(params)._asdict(), **frozen_networks, mesh=sharding.sampling_mesh(1)
        )
        settings = to_dict(self._config.sampling)
        for number in range(self._config.num_samples):
            reference, poses, truth = (self._batch[key][number] for key in ("reference", "poses", "frames"))
            frames = pipeline(reference, poses, **settings).frames
            pixels = np.round(frames * 255).astype(np.uint8)
            row = side_by_side([reference, poses[1:], pixels, truth[1:]], labels=_LABELS)
            path = directory / f"step_{step:07d}_{number}.mp4"
            _write_video(path, row, provenance(self._config.sampling.seed, settings))


_LABELS = ("reference", "pose", "generated", "true")
_LESS_MEMORY = "lower sampling.decode_chunk_size or sampling.group_size, or set sample_every=null"


def export_model(config: TrainConfig, model: ModelConfig, template: Template, params: Params, mesh: Mesh) -> None:
    """Write OUTPUT/model, a checkpoint like those of `convert_weights.py`, in `export_dtype`."""
    states = {name: nnx.state(network) for name, network in template.networks(params)._asdict().items()}
    states |= {name: nnx.state(network) for name, network in load_frozen(config, model, mesh, None, False).items()}
    sources = []
    if source := config.checkpoint or config.encoders:
        sources = checkpoint.read_manifest(source)["sources"]
    checkpoint.save_checkpoint(
        epath.Path(config.output) / "model",
        model,
        states,
        dtype=config.export_dtype,
        sources=sources,
        sampling=sampling_options(config, model.size_multiple),
        overwrite=True,
        progress=jax.process_index() == 0,
    )


def sampling_options(config: TrainConfig, size_multiple: int) -> dict[str, Any]:
    """Options that sampling with the result begins with: size, drawing and sampling of the training.

    A size that is the official rule's for its short side, such as 1024x576, is left to that rule, which chooses
    landscape or portrait by the picture.
    """
    width, height, resolution = config.data.width, config.data.height, min(config.data.width, config.data.height)
    official = target_size(height, width, resolution, "auto", size_multiple)
    size = {"resolution": resolution} if official == (height, width) else {"width": width, "height": height}
    sampling = {name: value for name, value in to_dict(config.sampling).items() if name != "seed"}
    return {**size, **values_of(DrawOptions, config.data), **sampling}


def _on_one_device(tree: Any, dtype: jnp.dtype) -> Any:
    """A copy of a sharded tree, cast, on this process's first device."""
    mesh = jax.tree.leaves(tree)[0].sharding.mesh
    gather = jax.jit(
        lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree), out_shardings=sharding.replicated(mesh)
    )
    return jax.tree.map(lambda x: x.addressable_data(0), gather(tree))


def _write_video(path: epath.Path, frames: np.ndarray, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # the encoder writes to local files only
        local = Path(folder) / path.name
        with open_writer(local, _FPS, frames.shape[2], frames.shape[1], metadata=metadata, progress=False) as writer:
            writer.write(frames)
        write_file(path, local.read_bytes())
