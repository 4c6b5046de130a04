"""Job lists: a file of one JSON object per line, or the YAML that the official release's inference script reads."""

import dataclasses
import json
import logging
import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any

import pydantic
from etils import epath

from mimicmotion_jax.config import build_config, config_dataclass, parse_yaml, to_dict
from mimicmotion_jax.inference.job import Job
from mimicmotion_jax.inference.options import GenerateConfig, Side, with_options
from mimicmotion_jax.inference.output import written_paths
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.seeds import Seed

logger = logging.getLogger(__name__)

OFFICIAL_NAMES = {
    "num_frames": "window_size",
    "frames_overlap": "window_overlap",
    "sample_stride": "stride",
    "resolution": "resolution",
    "num_inference_steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "noise_aug_strength": "noise_aug_strength",
    "seed": "seed",
}
"""Keys of a `test_case` in the official release's YAML, and the names of these options here."""

_MAX_LIST = 2**26  # bytes
_FORMAT = 'write one object per line, such as {"image": "person.jpg", "motion": "dance.mp4"}, with nothing around them'


def _check_path(text: str) -> str:
    if b"\0" in os.fsencode(text):  # which raises ValueError for other characters that no file name can have
        raise ValueError(f"{text!r} is not a path")
    if "://" in text:
        raise ValueError(
            f"{text} is a URL; copy inputs to this machine or to gs://, and name outputs relative to --output-dir"
        )
    return text


def _check_input(text: str) -> str:
    _check_path(text.removeprefix("gs://"))
    return text


_Path = Annotated[str, pydantic.AfterValidator(_check_path)]
_Input = Annotated[str, pydantic.AfterValidator(_check_input)]


@config_dataclass
class _Line:
    """One line of a JSON job list."""

    image: _Input
    motion: _Input
    output: _Path | None = None
    image_pose: _Input | None = None
    seed: Seed | None = None
    motion_size: tuple[Side, Side] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@config_dataclass
class _OfficialCase:
    """One `test_case` of the official release; its options are checked under their names here."""

    ref_video_path: _Input
    ref_image_path: _Input
    num_frames: Any = None
    resolution: Any = None
    frames_overlap: Any = None
    num_inference_steps: Any = None
    noise_aug_strength: Any = None
    guidance_scale: Any = None
    sample_stride: Any = None
    fps: Annotated[float, pydantic.Field(gt=0)] | None = None
    seed: Any = None


@config_dataclass
class _OfficialFile:
    """The official release's inference YAML."""

    test_case: list[dict[str, Any]]
    base_model_path: str | None = None
    ckpt_path: str | None = None


def read_jobs(
    path: Path | epath.Path,
    output_dir: Path | epath.Path,
    config: GenerateConfig | None = None,
) -> list[Job]:
    """Read a job list.

    A line of a JSON list is an object with the keys `image` and `motion`, and optionally `output` (by default
    IMAGE_MOTION.mp4), `image_pose`, `seed`, `motion_size` ([width, height]) and `options` (of this job alone, by their
    names in `GenerateConfig`). Inputs are relative to the folder of the list, or at gs://.

    A .yaml or .yml file is the official release's (`test_case: - ref_video_path: …`). Its inputs are relative to the
    working directory, as in that release, or to the folder of the list where they exist only there. `fps`, at which the
    official script writes every video, is ignored: a video keeps the tempo of its motion. `base_model_path` and
    `ckpt_path` are ignored too.

    Args:
        path: Job list, local or gs://.
        output_dir: Folder of all outputs, local or gs://.
        config: Options of the whole list, with which those of each job must be valid; None for the defaults.

    Raises:
        InputError: No such file, a line that is not such an object, an unknown key, an option that is not valid, an
            input that is a URL, an output of unknown format or outside `output_dir`, two jobs that write one file, a
            job that writes what it or another one reads, no jobs.
    """
    config = config or GenerateConfig()
    read = _read_official if path.suffix.lower() in (".yaml", ".yml") else _read_lines
    jobs = dict(read(path, output_dir))
    if not jobs:
        raise InputError(f"{path} holds no jobs; {_FORMAT}.")
    written: dict[PurePath, str] = {}
    for where, job in jobs.items():
        for place, target in check_job(job, output_dir, config, f"{path}, {where}").items():
            if (other := written.setdefault(place, where)) != where:
                raise InputError(f'{path}, {where}: the job of {other} writes {target} too; give each an "output".')
    for where, job in jobs.items():
        for given in job.inputs:
            place = _place(given)
            # Its folder too: a folder of pictures is replaced as a whole.
            for other in filter(None, map(written.get, (place, *place.parents))):
                raise InputError(
                    f'{path}, {other}: this job would destroy {given}, which {where} reads; give another "output".'
                )
    return list(jobs.values())


def parse_job(content: Any, folder: Path | epath.Path, output_dir: Path | epath.Path, source: str) -> Job:
    """Make a job of a line's content; `read_jobs` says what that is.

    Args:
        content: JSON value.
        folder: folder of relative inputs, local or gs://.
        output_dir: folder of all outputs, local or gs://.
        source: name of the line, for messages.

    Raises:
        InputError: not an object, an unknown key, a value of another type, an input that is a URL of other storage.
    """
    if not isinstance(content, dict):
        raise InputError(f"{source} is not a JSON object; {_FORMAT}.")
    line = build_config(_Line, content, source)
    return Job(
        image=_locate(line.image, folder),
        motion=_locate(line.motion, folder),
        output=output_dir / (line.output or f"{Path(line.image).stem}_{Path(line.motion).stem}.mp4"),
        image_pose=_locate(line.image_pose, folder) if line.image_pose else None,
        seed=line.seed,
        motion_size=line.motion_size,
        options=line.options,
    )


def to_line(job: Job, output_dir: Path | epath.Path) -> dict[str, Any]:
    """Content of the line that says the same as a job of `read_jobs`, with absolute paths of its inputs."""
    inputs = {name: getattr(job, name) for name in ("image", "motion", "image_pose")}
    line = {name: os.fspath(absolute_path(given)) for name, given in inputs.items() if given is not None}
    line["output"] = os.fspath(job.output)[len(os.fspath(output_dir)) :].lstrip("/")
    others = {"seed": job.seed, "motion_size": job.motion_size, "options": dict(job.options)}
    return line | {name: value for name, value in others.items() if value is not None}


def check_job(
    job: Job, output_dir: Path | epath.Path, config: GenerateConfig, source: str
) -> dict[PurePath, Path | epath.Path]:
    """Check the options and outputs of a job.

    Args:
        job: a job.
        output_dir: folder of all outputs, local or gs://.
        config: options of the whole list.
        source: name of the job, for messages.

    Returns:
        files and folders that it writes, by their absolute place without links; the video comes first.

    Raises:
        InputError: an option that is not valid, an output of unknown format or outside `output_dir`.
    """
    if "batch_size" in job.options:
        raise InputError(f"{source}: batch_size is an option of the whole list, not of one job.")
    with_options(config, job.options, source)
    try:
        targets = written_paths(job.output, job.options.get("save_pose", config.save_pose))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    places = {_place(target): target for target in targets}
    for place, target in places.items():
        if _place(output_dir) not in place.parents:
            raise InputError(f'{source}: "output" must lie inside {output_dir}, and {target} does not.')
    return places


def _read_lines(path: Path | epath.Path, output_dir: Path | epath.Path) -> Iterator[tuple[str, Job]]:
    """Yield the jobs of a JSON list, each with its place in the list for messages."""
    for number, text in enumerate(_read_text(path).split("\n"), start=1):  # a name may hold other ends of lines
        if not text.strip():
            continue
        where = f"line {number}"
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error))
            raise InputError(f"{path}, {where} is not JSON ({reason}); {_FORMAT}.") from None
        yield where, parse_job(content, path.parent, output_dir, f"{path}, {where}")


def _read_official(path: Path | epath.Path, output_dir: Path | epath.Path) -> Iterator[tuple[str, Job]]:
    """Yield the jobs of the official release's YAML; cases that share image and motion get numbered outputs."""
    file = build_config(_OfficialFile, parse_yaml(_read_text(path), path), str(path))
    logger.info(
        "%s: weights come from --checkpoint, not from base_model_path and ckpt_path; a video keeps the tempo of its "
        "motion, whatever fps says",
        path,
    )
    counts: dict[str, int] = {}
    for number, values in enumerate(file.test_case, start=1):
        where = f"test_case {number}"
        case = build_config(_OfficialCase, values, f"{path}, {where}")
        image, motion = (_find(text, path.parent) for text in (case.ref_image_path, case.ref_video_path))
        name = f"{image.stem}_{motion.stem}"
        counts[name] = counts.get(name, 0) + 1
        if counts[name] > 1:
            name += f"_{counts[name]}"
        given = to_dict(case)
        options = {ours: given[name] for name, ours in OFFICIAL_NAMES.items() if given[name] is not None}
        yield where, Job(image, motion, output_dir / f"{name}.mp4", options=options)


def _find(given: str, folder: Path | epath.Path) -> Path | epath.Path:
    """Return an input relative to the working directory, or to the list's folder where it exists only there."""
    beside = _locate(given, folder)
    return beside if beside.exists() and not Path(given).exists() else _locate(given, Path())


def _locate(given: str, folder: Path | epath.Path) -> Path | epath.Path:
    return epath.Path(given) if given.startswith("gs://") else folder / given


def _place(path: PurePath | epath.Path) -> PurePath:
    """Return the absolute path without links, `.` and `..`."""
    scheme, separator, rest = os.fspath(path).partition("://")
    if separator:
        return PurePosixPath(f"{scheme}:", posixpath.normpath(rest))
    return Path(os.path.realpath(path))


def _read_text(path: Path | epath.Path) -> str:
    try:
        if epath.Path(path).stat().length > _MAX_LIST:
            raise InputError(f"{path} is larger than a job list of {_MAX_LIST // 2**20} MiB; split it.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"there is no job file {path}.") from None
    except OSError as error:
        raise InputError(f"the job file {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; {_FORMAT}.") from None
