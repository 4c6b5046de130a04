"""Batched generation: a list of jobs, same shapes together, finished ones skipped, failures told at the end."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydantic

from mimicmotion_jax.ahead import one_ahead
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.generate import GenerateConfig, Job, Prepared, Preparer, generate
from mimicmotion_jax.pipeline import MimicMotionPipeline

logger = logging.getLogger(__name__)

_MOST_WAITING = 8  # prepared jobs that no other one matches


class _Line(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    image: str
    motion: str
    output: str | None = None
    image_pose: str | None = None
    seed: int | None = pydantic.Field(default=None, ge=0, lt=2**31)


def read_jobs(path: Path, output_dir: Path) -> list[Job]:
    """Read a file of one JSON object per line: {"image": …, "motion": …, "output"?: …, "image_pose"?: …, "seed"?: …}.

    Paths are relative to the file; outputs, by default IMAGE_MOTION.mp4, to `output_dir`.

    Raises:
        InputError: no such file, a line that is not such an object, two jobs with one output, no jobs.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no job file {path}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; write one JSON object per line.") from None
    jobs: dict[Path, Job] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate(json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error.msg}.") from None
        except pydantic.ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"]))
            raise InputError(f"{path}, line {number}: {where}: {detail['msg'].lower()}.") from None
        name = line.output or f"{Path(line.image).stem}_{Path(line.motion).stem}.mp4"
        job = Job(
            image=path.parent / line.image,
            motion=path.parent / line.motion,
            output=output_dir / name,
            image_pose=path.parent / line.image_pose if line.image_pose else None,
            seed=line.seed,
        )
        if job.output in jobs:
            raise InputError(f'{path}, line {number}: another job writes {name} too; give each an "output".')
        jobs[job.output] = job
    if not jobs:
        raise InputError(f"{path} holds no jobs; write one JSON object per line.")
    return list(jobs.values())


def run_jobs(
    pipeline: MimicMotionPipeline,
    jobs: Sequence[Job],
    config: GenerateConfig,
    process_id: int = 0,
    num_processes: int = 1,
) -> list[tuple[Job, str]]:
    """Make this process's share of the videos; jobs whose output exists are skipped.

    A job that fails does not stop the others. While the device makes some videos, the next ones' poses are detected.

    Returns:
        the failed jobs, each with the reason.
    """
    mine = jobs[process_id::num_processes]
    todo = [job for job in mine if not job.output.exists()]
    logger.info("%d jobs, %d of them done already", len(mine), len(mine) - len(todo))
    failures: list[tuple[Job, str]] = []
    preparer = Preparer(config, pipeline.config.size_multiple)
    for batch in one_ahead(_batches(todo, preparer, failures)):
        try:
            generate(pipeline, [prepared for _, prepared in batch], config)
        except (InputError, OSError) as error:
            logger.error("%s", error)
            failures += [(job, str(error)) for job, _ in batch]
    return failures


def _batches(
    jobs: Sequence[Job], preparer: Preparer, failures: list[tuple[Job, str]]
) -> Iterator[list[tuple[Job, Prepared]]]:
    """Prepare jobs one by one; yield those of equal shape together as soon as there are enough.

    Few jobs wait for company: what is prepared but not yet written would be lost if the run were killed.
    """
    waiting: dict[tuple[int, ...], list[tuple[Job, Prepared]]] = defaultdict(list)
    for job in jobs:
        try:
            prepared = preparer(job)
        except (InputError, OSError) as error:
            logger.error("%s: %s", job.output.name, error)
            failures.append((job, str(error)))
            continue
        group = waiting[prepared.shape]
        group.append((job, prepared))
        if len(group) == preparer.config.batch_size:
            yield waiting.pop(prepared.shape)
        elif sum(map(len, waiting.values())) > _MOST_WAITING:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()
