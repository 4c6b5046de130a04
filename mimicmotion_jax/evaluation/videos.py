"""Generation of the videos to score, and of the baselines that need a model.

    OUTPUT/videos/NAME/00000.png …    generated frames 1, 2, …, losslessly
    OUTPUT/withheld/NAME/…            the same with black pictures instead of poses
    OUTPUT/reconstruction/NAME/…      true frames 1, 2, …, encoded and decoded: an upper bound for generated videos

NAME.json beside each folder holds a hash of everything the video depends on; videos with the same hash are kept.
"""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimicmotion_jax.diffusion.fusion import plan_seams
from mimicmotion_jax.evaluation.comparison import GENERATED, RECONSTRUCTION, WITHHELD
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.model import Model
from mimicmotion_jax.evaluation.records import read_record, sha256_json, write_record
from mimicmotion_jax.evaluation.tasks import Task
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import report_out_of_memory
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

logger = logging.getLogger(__name__)

_FOLDERS = {GENERATED: "videos", WITHHELD: "withheld", RECONSTRUCTION: "reconstruction"}


class VideoMaker:
    """Makes the missing videos of a test set.

    Args:
        model: the checkpoint.
        config: options of the generation.
        output: folder of the run.
        failures: gets the sequences whose videos cannot be made.
        progress: show progress bars.
    """

    def __init__(self, model: Model, config: EvaluateConfig, output: Path, failures: Failures, progress: bool = True):
        self._model, self._config, self._output = model, config, output
        self._failures, self._progress = failures, progress

    def folder(self, column: str, task: Task) -> Path:
        """Return the folder of a task's frames."""
        return self._output / _FOLDERS[column] / task.name

    def generate(self, tasks: Sequence[Task], column: str = GENERATED) -> None:
        """Generate the missing videos; with black pictures instead of poses if `column` is `WITHHELD`.

        Raises:
            InputError: the weights cannot be loaded.
        """
        inputs = [task.withheld() for task in tasks] if column == WITHHELD else tasks
        todo = self._missing(inputs, column, self._config.result_options)
        for _, alike in itertools.groupby(sorted(todo, key=_shape), key=_shape):
            group, size = list(alike), self._config.batch_size
            for start in range(0, len(group), size):
                self._generate(group[start : start + size], column)

    def reconstruct(self, tasks: Sequence[Task]) -> None:
        """Encode and decode the true frames where that has not been done.

        Raises:
            InputError: the weights cannot be loaded.
        """
        options = {"chunk": self._config.decode_chunk_size, "overlap": self._config.chunk_overlap}
        for task in self._missing(tasks, RECONSTRUCTION, options):
            height, width = task.size
            path = self.folder(RECONSTRUCTION, task)
            with self._failures.leave_out(task.name):
                writing = open_writer(path, task.keypoints.fps, width, height)
                with (
                    writing as writer,
                    report_out_of_memory("lower decode_chunk_size, width and height, or use a larger device"),
                ):
                    for frames in self._model.reconstruct(task, self._config, self._progress):
                        writer.write(frames)
                self._write_record(RECONSTRUCTION, task, options)

    def seams(self, task: Task) -> list[int]:
        """Return the frames at which the generated video's windows change; see `plan_seams`."""
        return plan_seams(self._config.plan(task.num_frames, self._model.window_size), task.num_frames)

    def _generate(self, batch: Sequence[Task], column: str) -> None:
        """Generate a batch; if it fails, its sequences one by one."""
        paths = [self.folder(column, task) for task in batch]
        if len(batch) == 1:
            with self._failures.leave_out(batch[0].name):
                self._model.generate(batch, paths, self._config, self._progress)
                self._write_record(column, batch[0], self._config.result_options)
            return
        try:
            self._model.generate(batch, paths, self._config, self._progress)
        except Exception as error:
            logger.warning("a batch of %d failed (%s); trying its sequences one by one", len(batch), error)
            for task in batch:
                self._generate([task], column)
            return
        for task in batch:
            self._write_record(column, task, self._config.result_options)

    def _missing(self, tasks: Sequence[Task], column: str, options: dict[str, Any]) -> list[Task]:
        todo = []
        for task in tasks:
            path = self.folder(column, task)
            current = read_record(_record(path), self._key(task, options))
            if not (current and path.is_dir() and _is_complete(path, task)):
                _record(path).unlink(missing_ok=True)  # a folder without its record counts as unfinished
                todo.append(task)
        logger.info("%s: %d of %d exist already", _FOLDERS[column], len(tasks) - len(todo), len(tasks))
        if todo:
            _ = self._model.pipeline  # weights that cannot be loaded end the run, not each sequence
        return todo

    def _write_record(self, column: str, task: Task, options: dict[str, Any]) -> None:
        content = {"frames": task.num_frames - 1, "options": options}
        write_record(_record(self.folder(column, task)), self._key(task, options), content)

    def _key(self, task: Task, options: dict[str, Any]) -> str:
        return sha256_json([self._model.weights_sha256, self._model.dtype, task.sha256(), options])


def _shape(task: Task) -> tuple[int, ...]:
    return (task.num_frames, *task.size)


def _record(folder: Path) -> Path:
    return folder.with_name(folder.name + ".json")


def _is_complete(folder: Path, task: Task) -> bool:
    try:
        return open_video(folder, task.keypoints.fps).num_frames == task.num_frames - 1
    except InputError:
        return False
