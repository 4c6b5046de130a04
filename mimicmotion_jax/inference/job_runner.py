"""Videos of jobs from one pipeline: the two halves of the work that `run_jobs` calls."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, cast

from etils import epath

from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.options import GenerateConfig, PipelineOptions, with_options
from mimicmotion_jax.inference.output import Chunks, check_files, write_videos
from mimicmotion_jax.inference.progress import Progress, progress_folder, remove_progress
from mimicmotion_jax.runtime.errors import InputError


class Pipeline(Protocol):
    """Parts of `MimicMotionPipeline` that jobs need."""

    @property
    def prepare(self) -> Callable[..., Prepared]:
        """Prepare the inputs of one video."""
        ...

    @property
    def generate(self) -> Callable[..., Chunks]:
        """Generate videos of equal shape and options together."""
        ...

    @property
    def open_progress(self) -> Callable[..., Progress]:
        """Open the folders where the progress of videos is saved."""
        ...


class JobRunner:
    """Prepares and generates jobs. A context: local copies of inputs at gs:// are removed at its end.

    Args:
        pipeline: the networks.
        config: options of all jobs; those of a job override them.
        progress: show bars.
    """

    def __init__(self, pipeline: Pipeline, config: GenerateConfig, progress: bool = True):
        self._pipeline, self._config, self._progress = pipeline, config, progress
        self._copies = tempfile.TemporaryDirectory(prefix="mimicmotion-inputs-")
        self._folders: dict[epath.PathLike, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._copies.cleanup()

    def prepare(self, job: Job) -> Prepared:
        """Read a job's inputs.

        Raises:
            InputError: anything wrong with its inputs, options or output.
        """
        given = dict(job.options)
        given |= {name: value for name in ("seed", "motion_size") if (value := getattr(job, name)) is not None}
        options = with_options(self._config, given)
        check_files(job, options)
        image, motion, image_pose = (self._fetch(path, job) for path in (job.image, job.motion, job.image_pose))
        inputs = {"image_pose": image_pose, **values_of(PipelineOptions, options), "progress": self._progress}
        return dataclasses.replace(self._pipeline.prepare(image, motion, **inputs), output=job.output, options=options)

    def generate(self, batch: list[Prepared]) -> None:
        """Make and write the videos of a batch, of equal shape and options (but for the seed)."""
        options = cast(GenerateConfig, batch[0].options)
        outputs = [item.output for item in batch if item.output is not None]
        folders = [progress_folder(output) for output in outputs]
        saved = self._pipeline.open_progress(batch, folders, options.save_seconds) if options.resume else None
        frames = self._pipeline.generate(batch, progress=self._progress, saved=saved)
        write_videos(batch, outputs, frames, options)
        for folder in folders:
            remove_progress(folder)
        for output in outputs:
            if output in self._folders:
                shutil.rmtree(self._folders.pop(output))

    def _fetch(self, given: Path | epath.Path | None, job: Job) -> Path | epath.Path | None:
        """Return a local copy of an input at gs://, which stays until the job is done; others as they are."""
        if given is None or "://" not in os.fspath(given):
            return given
        if not given.exists():
            raise InputError(f"there is no file {given}.")
        if job.output not in self._folders:
            self._folders[job.output] = Path(tempfile.mkdtemp(dir=self._copies.name))
        copy = Path(tempfile.mkdtemp(dir=self._folders[job.output])) / given.name
        if given.is_dir():  # of pictures, or of OpenPose's files
            copy.mkdir()
            for file in given.iterdir():
                _copy(file, copy / file.name)
        else:
            _copy(given, copy)
        return copy


def _copy(source: Path | epath.Path, target: Path) -> None:
    with source.open("rb") as remote, target.open("wb") as local:
        shutil.copyfileobj(remote, local)
