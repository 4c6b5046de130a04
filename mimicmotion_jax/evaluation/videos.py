"""Make the videos that are scored: generated ones, and the baselines that need a model.

    OUTPUT/videos/NAME/00000.png …    generated frames 1, 2, …, free of compression
    OUTPUT/withheld/NAME/…            the same from black pictures instead of poses
    OUTPUT/reconstruction/NAME/…      true frames 1, 2, …, encoded and decoded: what no generated video can surpass

Beside each lies NAME.json with a hash of all that it was made from; what is there with the same hash is not made again.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from mimicmotion_jax.diffusion.fusion import WindowPlan
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.model import Model
from mimicmotion_jax.evaluation.records import read_record, sha256_json, write_record
from mimicmotion_jax.evaluation.tasks import Task
from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import OutputOptions
from mimicmotion_jax.inference.output import write_videos
from mimicmotion_jax.models import encode
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import fetch, report_out_of_memory
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

logger = logging.getLogger(__name__)

_GENERATED, _WITHHELD, _RECONSTRUCTION = "videos", "withheld", "reconstruction"


class VideoMaker:
    """Makes what is missing of the videos of a test set; the weights are loaded when something is.

    Args:
        model: the checkpoint.
        config: how videos are generated.
        output: the folder of the run.
        progress: show bars.
    """

    def __init__(self, model: Model, config: EvaluateConfig, output: Path, progress: bool = True):
        self._model, self._config, self._output, self._progress = model, config, output, progress
        self._pipeline: MimicMotionPipeline | None = None

    def generate(self, tasks: Sequence[Task], withhold_poses: bool = False) -> list[Path]:
        """The folders of generated frames, one per task; with black pictures instead of poses if these are withheld.

        Raises:
            InputError: weights or options that do not work, a device or a disk that is too small.
        """
        kind = _WITHHELD if withhold_poses else _GENERATED
        given = [task.withheld() for task in tasks] if withhold_poses else tasks
        todo = self._missing(given, kind, self._config.result_options)
        for _, alike in itertools.groupby(sorted(todo, key=_shape), key=_shape):
            group = list(alike)
            for start in range(0, len(group), self._config.batch_size):
                batch = group[start : start + self._config.batch_size]
                self._write(batch, kind)
                for task in batch:
                    self._write_record(kind, task, self._config.result_options)
        return [self._folder(kind, task) for task in tasks]

    def _write(self, batch: Sequence[Task], kind: str) -> None:
        options = self._config.pipeline_options()
        prepared = []
        for task in batch:
            poses = DrawnPoses(task.keypoints, *task.size, options.draw_style)
            prepared.append(Prepared(next(task.frames()), poses, task.keypoints[1:], task.keypoints.fps, options))
        chunks = self._loaded().generate(prepared, self._progress)
        write_videos(prepared, [self._folder(kind, task) for task in batch], chunks, OutputOptions(audio=False))

    def reconstruct(self, tasks: Sequence[Task]) -> list[Path]:
        """The folders of true frames that went through the VAE, one per task.

        Raises:
            InputError: as `generate`.
        """
        options = {"chunk": self._config.decode_chunk_size, "overlap": self._config.chunk_overlap}
        for task in self._missing(tasks, _RECONSTRUCTION, options):
            height, width = task.size
            writing = open_writer(self._folder(_RECONSTRUCTION, task), task.keypoints.fps, width, height)
            with writing as writer, report_out_of_memory("lower decode_chunk_size or size, or use a larger device"):
                for frames in self._through_vae(task):
                    writer.write(frames)
            self._write_record(_RECONSTRUCTION, task, options)
        return [self._folder(_RECONSTRUCTION, task) for task in tasks]

    def seams(self, task: Task) -> list[int]:
        """Frames of the generated video before which windows change; see `plan_seams`."""
        return plan_seams(self._config.plan(task.num_frames, self._model.window_size), task.num_frames)

    def _missing(self, tasks: Sequence[Task], kind: str, options: dict[str, Any]) -> list[Task]:
        todo = []
        for task in tasks:
            path = self._folder(kind, task)
            if not (path.is_dir() and read_record(_record(path), self._key(task, options)) and _is_whole(path, task)):
                # Without its record a folder counts as unfinished, whatever happens from here on.
                _record(path).unlink(missing_ok=True)
                todo.append(task)
        logger.info("%s: %d of %d are there already", kind, len(tasks) - len(todo), len(tasks))
        return todo

    def _write_record(self, kind: str, task: Task, options: dict[str, Any]) -> None:
        content = {"frames": task.num_frames - 1, "options": options}
        write_record(_record(self._folder(kind, task)), self._key(task, options), content)

    def _key(self, task: Task, options: dict[str, Any]) -> str:
        return sha256_json([self._model.weights_sha256, self._model.dtype, task.sha256(), options])

    def _folder(self, kind: str, task: Task) -> Path:
        return self._output / kind / task.name

    def _loaded(self) -> MimicMotionPipeline:
        if self._pipeline is None:
            model = self._model
            self._pipeline = MimicMotionPipeline.from_pretrained(
                model.directory, model.dtype, num_devices=model.num_devices, progress=self._progress
            )
        return self._pipeline

    def _through_vae(self, task: Task) -> Iterator[UInt8[np.ndarray, "n height width 3"]]:
        pipeline = self._loaded()
        vae = pipeline.vae
        full = pipeline.unet.conv_in.kernel.dtype == jnp.float32
        silence = jnp.zeros((1, *task.size, 3))
        latents = []
        with jax.default_matmul_precision("highest") if full else contextlib.nullcontext():
            bar = tqdm(task.frames(start=1), "encoding", task.num_frames - 1, unit="frame", disable=not self._progress)
            for frame in bar:
                encoded = encode.encode_image(vae, jnp.asarray(frame[None]), silence)
                latents.append(fetch(encoded).astype(np.float32) * vae.config.scaling_factor)
        for frames in pipeline.decode(np.stack(latents, axis=1), self._config, self._progress):
            yield np.round(frames[0] * 255).astype(np.uint8)


def plan_seams(plan: WindowPlan, num_frames: int) -> list[int]:
    """Frames, counted from 0 for the first one after the reference, that other windows show than the frame before.

    Args:
        plan: of `num_frames` frames, in which frame 0 is the reference's slot, or of more.
        num_frames: with the reference.
    """
    shown = np.zeros((plan.num_windows, plan.indices.max() + 1), bool)
    rows = np.broadcast_to(np.arange(plan.num_windows)[:, None], plan.indices.shape)
    shown[rows, plan.indices] = plan.weights > 0
    moving = shown[:, 1:num_frames]
    return [int(frame) for frame in 1 + np.flatnonzero((moving[:, 1:] != moving[:, :-1]).any(0))]


def _shape(task: Task) -> tuple[int, ...]:
    return (task.num_frames, *task.size)


def _record(folder: Path) -> Path:
    return folder.with_name(folder.name + ".json")


def _is_whole(folder: Path, task: Task) -> bool:
    try:
        return open_video(folder, task.keypoints.fps).num_frames == task.num_frames - 1
    except InputError:
        return False
