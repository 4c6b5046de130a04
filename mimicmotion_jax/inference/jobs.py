"""Run many jobs: equal ones in batches, finished ones skipped, and a failure of one never stops the others."""

import contextlib
import json
import logging
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.prefetch import prefetch
from mimicmotion_jax.inference.progress import progress_folder, remove_progress
from mimicmotion_jax.runtime.atomic_files import remove_remains
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.encode import is_written, output_target

logger = logging.getLogger(__name__)

MAX_WAITING = 8
"""Largest number of prepared jobs that wait for others of their shape; a killed run loses their preparation."""


@dataclass(frozen=True)
class Failure:
    """A job that failed."""

    job: Job
    reason: str
    """One sentence."""
    traceback: str
    log: Path | epath.Path | None
    """File with the traceback; None if none was asked for, or it could not be written."""


def run_jobs(
    jobs: Sequence[Job],
    prepare: Callable[[Job], Prepared],
    generate: Callable[[list[Prepared]], None],
    batch_size: int,
    log_directory: Path | epath.Path | None,
    process_id: int = 0,
    num_processes: int = 1,
) -> list[Failure]:
    """Make this process's share of the videos; skip jobs whose output exists.

    The next batch is prepared in a thread while the device generates the present one. Whatever exception a job raises,
    the others go on; a batch that fails is tried again one job at a time.

    Args:
        jobs: The whole list, the same in every process.
        prepare: Reads a job's files.
        generate: Makes and writes the videos of a batch, of equal shape and options (but for the seed).
        batch_size: Largest number of jobs in a batch.
        log_directory: Folder for the tracebacks of failed jobs, created for the first one; None writes none.
        process_id: Index of this process, which takes every `num_processes`-th job.
        num_processes: Number of processes that share the list.
    """
    mine = list(enumerate(jobs, start=1))[process_id::num_processes]
    todo = []
    for number, job in mine:
        if is_written(job.output):  # perhaps by a process that was killed as soon as it was
            remove_remains(output_target(job.output))
            remove_progress(progress_folder(job.output))
        else:
            todo.append((number, job))
    logger.info("%d jobs, %d of them done already", len(mine), len(mine) - len(todo))
    failures = _Failures(log_directory)
    failures.forget(mine)
    for batch in prefetch(_batches(todo, prepare, batch_size, failures)):
        _generate(batch, generate, failures)
    if failures.found and log_directory is not None:
        logger.error("%d of %d jobs failed; their tracebacks are in %s", len(failures.found), len(mine), log_directory)
    return failures.found


@dataclass(frozen=True)
class _Ready:
    number: int
    job: Job
    prepared: Prepared


class _Failures:
    """Failures so far, each reported at once."""

    def __init__(self, directory: Path | epath.Path | None):
        self.found: list[Failure] = []
        self._directory = directory

    def forget(self, jobs: Sequence[tuple[int, Job]]) -> None:
        """Remove the logs of an earlier run."""
        if self._directory is None:
            return
        logs = [log for number, job in jobs if (log := self._directory / _log_name(number, job)).exists()]
        for log in logs:
            log.unlink()
        if logs:
            with contextlib.suppress(OSError):  # other files are in it
                self._directory.rmdir()

    def add(self, number: int, job: Job, error: Exception) -> None:
        reason = _reason(error)
        logger.error("failed: %s: %s", output_target(job.output).name, reason)
        text = "".join(traceback.format_exception(error))
        log = None if self._directory is None else self._write(self._directory / _log_name(number, job), text, error)
        self.found.append(Failure(job, reason, text, log))

    @staticmethod
    def _write(log: Path | epath.Path, text: str, error: Exception) -> Path | epath.Path | None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(text.encode(errors="backslashreplace"))
        except OSError as problem:
            shown = "" if isinstance(error, InputError | OSError) else f":\n{text}"
            logger.error("%s cannot be written (%s)%s", log, problem.strerror or problem, shown)
            return None
        return log


def _log_name(number: int, job: Job) -> str:
    return f"{number:04d}-{output_target(job.output).name[:100]}.log"


def _generate(batch: list[_Ready], generate: Callable[[list[Prepared]], None], failures: _Failures) -> None:
    try:
        return generate([ready.prepared for ready in batch])
    except Exception as error:
        if len(batch) == 1:
            return failures.add(batch[0].number, batch[0].job, error)
        reason = _reason(error)
    # Here the exception is gone, and with it what the failed call held in memory.
    logger.warning("a batch of %d failed; its videos are made one at a time", len(batch))
    before = len(failures.found)
    for ready in batch:
        if not is_written(ready.job.output):
            _generate([ready], generate, failures)
    if len(failures.found) == before:
        logger.warning("together they failed because: %s", reason)


def _batches(
    jobs: Sequence[tuple[int, Job]],
    prepare: Callable[[Job], Prepared],
    batch_size: int,
    failures: _Failures,
) -> Iterator[list[_Ready]]:
    """Prepare jobs one by one; yield those of equal shape and options together as soon as there are enough."""
    waiting: dict[tuple[object, ...], list[_Ready]] = defaultdict(list)
    for number, job in jobs:
        try:
            prepared = prepare(job)
        except Exception as error:
            failures.add(number, job, error)
            continue
        options = {name: value for name, value in job.options.items() if name != "seed"}  # samples have their own
        key = (prepared.shape, json.dumps(options, sort_keys=True, default=str))
        waiting[key].append(_Ready(number, job, prepared))
        if len(waiting[key]) == batch_size:
            yield waiting.pop(key)
        elif sum(map(len, waiting.values())) > MAX_WAITING:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}."
    first_line = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}{f': {first_line}' if first_line else ''}."
