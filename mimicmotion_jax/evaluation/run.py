"""A whole evaluation: find the sequences, generate missing videos, score them, write results and page."""

import dataclasses
import datetime
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mimicmotion_jax.config import to_dict
from mimicmotion_jax.convert.metric_networks import load_metric_network
from mimicmotion_jax.evaluation.comparison import GENERATED, RECONSTRUCTION, WITHHELD, Comparison, compare
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.model import open_model
from mimicmotion_jax.evaluation.protocols import Protocol, get_protocol
from mimicmotion_jax.evaluation.records import sha256_json, write_text
from mimicmotion_jax.evaluation.report import write_page
from mimicmotion_jax.evaluation.results import collect, describe_short_videos, missing_networks
from mimicmotion_jax.evaluation.scores import Networks, Scorer
from mimicmotion_jax.evaluation.sequences import TestSequence, find_counterparts, find_sequences
from mimicmotion_jax.evaluation.tasks import TaskMaker
from mimicmotion_jax.evaluation.videos import VideoMaker
from mimicmotion_jax.metrics.network import NetworkName
from mimicmotion_jax.pipeline import DTypeName
from mimicmotion_jax.runtime.atomic_files import exclusive
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import check_writable

logger = logging.getLogger(__name__)

ERROR_LOG = "errors.log"
"""File in the output folder with the tracebacks of sequences that were left out."""

_OWNER = "protocol.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """Inputs and output of an evaluation; give exactly one of `checkpoint` and `generated`."""

    protocol: str
    data: Path
    output: Path
    checkpoint: str | Path | None = None
    """Folder, gs:// or hub id."""
    generated: Path | None = None
    weights: Mapping[NetworkName, Sequence[Path]] = dataclasses.field(default_factory=dict)
    """Files of metric networks: "i3d", "resnet3d", "lpips"."""
    dtype: DTypeName | None = None
    num_devices: int | None = None
    command: str = ""
    """Command line, shown beside the results."""


def evaluate(request: Request, config: EvaluateConfig, progress: bool = True) -> dict[str, Any]:
    """Write OUTPUT/results.json and OUTPUT/index.html, and return the results; existing videos and scores are reused.

    A sequence that fails is left out: its reason is in the results ("left_out"), its traceback in OUTPUT/errors.log.

    Raises:
        InputError: data is missing or does not fit, every sequence failed, the output holds another protocol's results,
            or another run is writing to it.
    """
    protocol = get_protocol(request.protocol)
    _check(request, config)
    with exclusive(request.output):
        return _evaluate(request, config, protocol, progress)


def _evaluate(request: Request, config: EvaluateConfig, protocol: Protocol, progress: bool) -> dict[str, Any]:
    networks: Networks = {name: load_metric_network(name, *paths) for name, paths in request.weights.items()}
    for sentence in missing_networks(networks):
        logger.warning("%s", sentence)
    _check_owner(request.output, protocol)
    failures = Failures(request.output / ERROR_LOG)
    sequences = find_sequences(request.data, protocol, failures, progress)
    if request.checkpoint is None:
        comparisons = _compare_existing(request, config, protocol, sequences, failures, progress)
        checkpoint, options = None, {"num_frames": config.num_frames}
    else:
        comparisons, checkpoint = _generate(request, config, protocol, sequences, failures, progress)
        options = config.result_options
    comparisons = failures.remaining(comparisons)
    if sentence := describe_short_videos(comparisons, config.num_frames):
        logger.warning("%s", sentence)
    scorer = Scorer(networks, request.output, progress)
    scores = {}
    for comparison in tqdm(comparisons, "scores", unit="sequence", disable=not progress):
        with failures.leave_out(comparison.name):
            scores[comparison.name] = scorer(comparison)
    comparisons = failures.remaining(comparisons)
    origin = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": request.command,
        "data": str(request.data),
        "generated": None if request.generated is None else str(request.generated),
        "checkpoint": checkpoint,
        "options": options,
        "options_sha256": sha256_json(options),
        "left_out": failures.reasons,
    }
    results = json.loads(json.dumps(collect(protocol, comparisons, scores, scorer, origin)))
    write_text(request.output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_page(request.output, results, comparisons, config.draw_style, progress)
    return results


def _check(request: Request, config: EvaluateConfig) -> None:
    if (request.checkpoint is None) == (request.generated is None):
        raise InputError("give either --checkpoint DIR, to generate videos, or --generated DIR with videos to score.")
    if request.generated is not None:
        given = to_dict(config)
        changed = [key for key, value in to_dict(EvaluateConfig()).items() if value != given[key]]
        if unused := [key for key in changed if key != "num_frames"]:
            raise InputError(f"{unused[0]} has no effect with --generated, which makes no videos; leave it out.")
    output = request.output.resolve()
    for folder in (request.data, request.generated):
        if folder is not None and folder.resolve() in (output, *output.parents):
            raise InputError(f"--output {request.output} lies in {folder}, which is an input; choose another folder.")
    check_writable(request.output / "page" / "sequence.mp4")


def _owner(protocol: Protocol) -> dict[str, str]:
    return {"name": protocol.name, "sha256": protocol.sha256}


def _check_owner(output: Path, protocol: Protocol) -> None:
    """Refuse a folder that holds another protocol's results, so that numbers of two protocols never mix."""
    path = output / _OWNER
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        raise InputError(f"{path} is damaged; choose another --output.") from None
    if found != _owner(protocol):
        other = found.get("name") if isinstance(found, dict) else None
        raise InputError(
            f"{output} holds results of protocol '{other}' or of another version of it, whose numbers do not compare "
            f"with those of '{protocol.name}' ({protocol.sha256[:12]}); choose another --output."
        )


def _claim(output: Path, protocol: Protocol) -> None:
    """Record the folder's protocol, once all input is checked: a refused run does not claim it."""
    write_text(output / _OWNER, json.dumps(_owner(protocol)) + "\n")


def _compare_existing(
    request: Request,
    config: EvaluateConfig,
    protocol: Protocol,
    sequences: Sequence[TestSequence],
    failures: Failures,
    progress: bool,
) -> list[Comparison]:
    assert request.generated is not None
    readers = find_counterparts(request.generated, sequences, protocol.image_fps, failures)
    _claim(request.output, protocol)
    comparisons = []
    for sequence in tqdm(failures.remaining(sequences), "hashing the videos", disable=not progress):
        with failures.leave_out(sequence.name):
            videos = {GENERATED: readers[sequence.name]}
            comparisons.append(compare(sequence, videos, protocol, max_frames=config.num_frames))
    return comparisons


def _generate(
    request: Request,
    config: EvaluateConfig,
    protocol: Protocol,
    sequences: Sequence[TestSequence],
    failures: Failures,
    progress: bool,
) -> tuple[list[Comparison], dict[str, Any]]:
    """Generate missing videos; return the comparisons and a description of the checkpoint."""
    assert request.checkpoint is not None
    model = open_model(request.checkpoint, request.dtype, request.num_devices, progress)
    config.plan(1, model.window_size)  # raises an error for impossible windows
    make_task = TaskMaker(protocol, config, model.size_multiple, request.output / "poses", progress)
    _claim(request.output, protocol)
    tasks = []
    for sequence in sequences:
        with failures.leave_out(sequence.name):
            tasks.append(make_task(sequence))
    maker = VideoMaker(model, config, request.output, failures, progress)
    maker.generate(tasks := failures.remaining(tasks))
    columns = [GENERATED, RECONSTRUCTION]
    if config.withhold_poses:
        maker.generate(tasks := failures.remaining(tasks), WITHHELD)
        columns.append(WITHHELD)
    maker.reconstruct(tasks := failures.remaining(tasks))
    comparisons = []
    for task in failures.remaining(tasks):
        with failures.leave_out(task.name):
            readers = {column: open_video(maker.folder(column, task), task.keypoints.fps) for column in columns}
            seams = tuple(maker.seams(task))
            comparisons.append(compare(task.sequence, readers, protocol, task.keypoints, seams, config.num_frames))
    checkpoint = {
        "path": str(request.checkpoint),
        "manifest_sha256": model.manifest_sha256,
        "weights_sha256": model.weights_sha256,
        "dtype": request.dtype,
    }
    return comparisons, checkpoint
