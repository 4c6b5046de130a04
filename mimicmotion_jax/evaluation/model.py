"""The evaluated checkpoint: hashes of its contents, and the only calls into the pipeline's generation."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm

from mimicmotion_jax import checkpoint as checkpoints
from mimicmotion_jax.config import values_of
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.records import sha256_files
from mimicmotion_jax.evaluation.tasks import Task
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import OutputOptions, PipelineOptions
from mimicmotion_jax.inference.output import write_videos
from mimicmotion_jax.models import encode
from mimicmotion_jax.pipeline import DTypeName, MimicMotionPipeline
from mimicmotion_jax.pose.options import DrawOptions
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.runtime.out_of_memory import fetch

# Frames are scored as they were generated.
_PLAIN = OutputOptions(audio=False, watermark=False, credentials=False)


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint, its hashes, and the devices and options of a run."""

    directory: epath.Path
    manifest_sha256: str
    weights_sha256: str
    """Hash of all files; manifests of two steps of one training may be equal."""
    window_size: int
    size_multiple: int
    """Required divisor of height and width, in pixels."""
    dtype: DTypeName | None
    num_devices: int | None

    @functools.cached_property
    def pipeline(self) -> MimicMotionPipeline:
        """The pipeline; the weights are loaded at the first use."""
        return MimicMotionPipeline.from_pretrained(
            str(self.directory), self.dtype, num_devices=self.num_devices, progress=True
        )

    def generate(
        self, tasks: Sequence[Task], paths: Sequence[Path], config: EvaluateConfig, progress: bool = True
    ) -> None:
        """Generate the videos of tasks of equal shape and write their frames to folders.

        Raises:
            InputError: the device's memory does not suffice, or an output cannot be written.
        """
        options = PipelineOptions(**values_of(SamplingConfig, config), **values_of(DrawOptions, config))
        prepared = []
        for task in tasks:
            poses = DrawnPoses(task.keypoints, *task.size, config.draw_style)
            prepared.append(Prepared(next(task.frames()), poses, task.keypoints[1:], task.keypoints.fps, options))
        write_videos(prepared, paths, self.pipeline.generate(prepared, progress), _PLAIN)

    def reconstruct(
        self, task: Task, options: SamplingConfig, progress: bool
    ) -> Iterator[UInt8[np.ndarray, "n height width 3"]]:
        """Encode and decode the true frames after the reference; yield the decoded ones in order."""
        vae = self.pipeline.vae
        float32 = self.pipeline.unet.conv_in.kernel.dtype == jnp.float32
        no_noise = jnp.zeros((1, *task.size, 3))
        latents = []
        with jax.default_matmul_precision("highest") if float32 else contextlib.nullcontext():
            bar = tqdm(task.frames(start=1), "encoding", task.num_frames - 1, unit="frame", disable=not progress)
            for frame in bar:
                encoded = encode.encode_image(vae, jnp.asarray(frame[None]), no_noise)
                latents.append(fetch(encoded).astype(np.float32) * vae.config.scaling_factor)
        for frames in self.pipeline.decode(np.stack(latents, axis=1), options, progress):
            yield np.round(frames[0] * 255).astype(np.uint8)


def open_model(source: str | Path, dtype: DTypeName | None, num_devices: int | None, progress: bool = True) -> Model:
    """Read a checkpoint's configuration and hash its files.

    Args:
        source: the checkpoint: a folder, gs:// or a hub id.
        dtype: see `MimicMotionPipeline.from_pretrained`.
        num_devices: see `MimicMotionPipeline.from_pretrained`.
        progress: show a progress bar.

    Raises:
        InputError: there is no checkpoint.
    """
    root = checkpoints.resolve(source)
    config = checkpoints.read_config(root)
    files = sorted((str(path.relative_to(root)), path) for path in _files(root))
    return Model(
        root,
        checkpoints.manifest_sha256(root),
        sha256_files(tqdm(files, "hashing the weights", unit="file", disable=not progress)),
        config.window_size,
        config.size_multiple,
        dtype,
        num_devices,
    )


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path
