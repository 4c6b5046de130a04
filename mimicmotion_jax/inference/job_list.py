"""Lists of jobs: a file with one JSON object per line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pydantic

from mimicmotion_jax.config import first_mistake
from mimicmotion_jax.inference.job import Job
from mimicmotion_jax.inference.options import Side
from mimicmotion_jax.inference.outputs import real_path, written_paths
from mimicmotion_jax.runtime.errors import InputError

_FORMAT = 'write one object per line, such as {"image": "person.jpg", "motion": "dance.mp4"}, with nothing around them'


def _check_path(text: str) -> str:
    """The system's functions for files raise `ValueError` for names that no file can have."""
    try:
        usable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ValueError(f"no file can be called {text!r}")
    return text


_Path = Annotated[str, pydantic.AfterValidator(_check_path)]


class _Line(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    image: _Path
    motion: _Path
    output: _Path | None = None
    image_pose: _Path | None = None
    seed: int | None = pydantic.Field(default=None, ge=0, lt=2**31)
    motion_size: tuple[Side, Side] | None = None


def read_jobs(path: Path, output_dir: Path, save_pose: bool = False) -> list[Job]:
    """Read a file of one JSON object per line.

    {"image": …, "motion": …, "output"?: …, "image_pose"?: …, "seed"?: …, "motion_size"?: [width, height]}

    Args:
        path: of the file; paths in it are relative to its folder.
        output_dir: what outputs, by default IMAGE_MOTION.mp4, are relative to.
        save_pose: whether each job also writes its pose.

    Raises:
        InputError: no such file, a line that is not such an object, an output of unknown format, two jobs that write
            one file, a job that writes what it or another one reads, no jobs.
    """
    jobs: dict[int, Job] = {}
    for number, text in enumerate(_read_lines(path), start=1):
        if text.strip():
            jobs[number] = _job(_parse(text, f"{path}, line {number}"), path.parent, output_dir)
    if not jobs:
        raise InputError(f"{path} holds no jobs; {_FORMAT}.")
    written = _refuse_equal_outputs(path, jobs, save_pose)
    for number, job in jobs.items():
        for given in job.inputs:
            real = real_path(given)
            # Its folder too: a folder of pictures is replaced as a whole.
            for other in filter(None, map(written.get, (real, *real.parents))):
                raise InputError(
                    f"{path}, line {other}: this job would destroy {given}, which line {number} reads; give another "
                    '"output".'
                )
    return list(jobs.values())


def _job(line: _Line, folder: Path, output_dir: Path) -> Job:
    return Job(
        image=folder / line.image,
        motion=folder / line.motion,
        output=output_dir / (line.output or f"{Path(line.image).stem}_{Path(line.motion).stem}.mp4"),
        image_pose=folder / line.image_pose if line.image_pose else None,
        seed=line.seed,
        motion_size=line.motion_size,
    )


def _refuse_equal_outputs(path: Path, jobs: Mapping[int, Job], save_pose: bool) -> dict[Path, int]:
    """Which line writes what."""
    written: dict[Path, int] = {}
    for number, job in jobs.items():
        where = f"{path}, line {number}"
        try:
            targets = written_paths(job.output, save_pose)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        for target in targets:
            if (other := written.setdefault(real_path(target), number)) != number:
                raise InputError(f'{where}: the job of line {other} writes {target} too; give each an "output".')
    return written


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")  # a name may hold other ends of lines
    except FileNotFoundError:
        raise InputError(f"there is no job file {path}.") from None
    except IsADirectoryError:
        raise InputError(f"the job file {path} is a folder; give a file: {_FORMAT}.") from None
    except OSError as error:
        raise InputError(f"the job file {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; {_FORMAT}.") from None


def _parse(text: str, where: str) -> _Line:
    try:
        content = json.loads(text)
    except ValueError as error:  # also for a number of thousands of digits
        detail = error.msg.lower() if isinstance(error, json.JSONDecodeError) else "a number is too long"
        raise InputError(f"{where} is not JSON ({detail}); {_FORMAT}.") from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply for a job; {_FORMAT}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{where} is not a JSON object; {_FORMAT}.")
    try:
        return _Line.model_validate(content)
    except pydantic.ValidationError as error:
        key, message = first_mistake(error)
        raise InputError(f"{where}: {key}: {message[:1].lower() + message[1:]}.") from None
