"""Sample videos during training, to see how far it has come."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8

from mimicmotion_jax import sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.failures import log_failures
from mimicmotion_jax.training.state import Params
from mimicmotion_jax.training.template import Template
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.provenance import provenance

_FPS = 8
_LABELS = ("reference", "pose", "generated", "true")
_LESS_MEMORY = "lower sampling.decode_chunk_size or sampling.group_size, or set sample_every=null"


class Sampler:
    """Samples of the same few clips at every call: reference, skeletons, generated and true frames side by side.

    Args:
        config: of the run.
        model: sizes.
        template: of UNet and PoseNet.
    """

    def __init__(self, config: TrainConfig, model: ModelConfig, template: Template):
        self._config, self._model, self._template = config, model, template
        # The pipeline wants the reference's own pose first, whatever the clips of this run look like.
        num_frames = config.data.num_frames + (0 if config.data.reference_slot else 1)
        data = dataclasses.replace(
            config.data, encodings=False, reference_slot=True, num_frames=num_frames, num_workers=0, flip=False
        )
        loader = ClipLoader(data, config.num_samples, config.seed + 1, downscale=model.vae.downscale)
        self._batch = next(loader)
        loader.close()

    def __call__(self, step: int, params: Params, encoders: Mapping[str, Any], directory: epath.Path) -> None:
        """Write DIRECTORY/step_STEP_N.mp4; lack of memory or disk space is logged and does not end the run.

        All processes call this together; the first one generates.

        Args:
            step: number for the file names.
            params: of UNet and PoseNet, sharded.
            encoders: VAE and CLIP by name, sharded.
            directory: local or gs://.

        Raises:
            jax.errors.JaxRuntimeError: with several processes, not enough memory to gather the parameters.
        """
        tolerant = log_failures(f"samples of step {step}", _LESS_MEMORY)
        trees, dtype = (params, encoders), jnp.dtype(self._config.dtype)
        if jax.process_count() == 1:
            with tolerant:
                self._make(step, _on_one_device(trees, dtype), directory)
            return
        gathered = _on_one_device(trees, dtype)  # a collective: if it fails on one process, none can go on
        if jax.process_index() == 0:
            with tolerant:
                self._make(step, gathered, directory)

    def _make(self, step: int, trees: tuple[Params, Mapping[str, Any]], directory: epath.Path) -> None:
        params, encoders = trees
        networks = {**self._template.networks(params), **encoders}
        pipeline = MimicMotionPipeline(self._model, **networks, mesh=sharding.sampling_mesh(1))
        sampling = self._config.trained_sampling
        for number in range(self._config.num_samples):
            reference, poses, truth = (self._batch[key][number] for key in ("reference", "poses", "frames"))
            options = {**to_dict(sampling), "motion_kind": "skeletons", "progress": False}
            frames = pipeline(reference, poses, **options).frames
            pixels = np.round(frames * 255).astype(np.uint8)
            row = side_by_side([reference, poses[1:], pixels, truth[1:]], labels=_LABELS)
            path = directory / f"step_{step:07d}_{number}.mp4"
            _write_video(path, row, provenance(sampling.seed, to_dict(sampling)))


def _on_one_device(tree: Any, dtype: jnp.dtype) -> Any:
    """Copy a sharded tree, cast, to this process's first device."""
    mesh = jax.tree.leaves(tree)[0].sharding.mesh
    gather = jax.jit(
        lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree), out_shardings=sharding.replicated(mesh)
    )
    return jax.tree.map(lambda x: x.addressable_data(0), gather(tree))


def _write_video(path: epath.Path, frames: UInt8[np.ndarray, "f h w 3"], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # the encoder writes to local files only
        local = Path(folder) / path.name
        with open_writer(local, _FPS, frames.shape[2], frames.shape[1], metadata=metadata, progress=False) as writer:
            writer.write(frames)
        write_file(path, local.read_bytes())
