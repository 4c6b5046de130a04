"""A whole evaluation: find what is to be compared, make what is missing, score it, write results and page."""

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
from mimicmotion_jax.evaluation.model import open_model
from mimicmotion_jax.evaluation.protocols import Protocol, get_protocol
from mimicmotion_jax.evaluation.records import sha256_json, write_text
from mimicmotion_jax.evaluation.report import write_page
from mimicmotion_jax.evaluation.results import collect, cut_short, missing_networks
from mimicmotion_jax.evaluation.scores import Networks, Scorer
from mimicmotion_jax.evaluation.sequences import TestSequence, find_counterparts, find_sequences, sha256_video
from mimicmotion_jax.evaluation.tasks import TaskMaker
from mimicmotion_jax.evaluation.videos import VideoMaker
from mimicmotion_jax.pipeline import DTypeName
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import check_writable

logger = logging.getLogger(__name__)

_OWNER = "protocol.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate; exactly one of `checkpoint` and `generated`."""

    protocol: str
    data: Path
    output: Path
    checkpoint: Path | None = None
    generated: Path | None = None
    weights: Mapping[str, Sequence[Path]] = dataclasses.field(default_factory=dict)
    """Files of metric networks by name: "i3d", "resnet3d", "lpips"."""
    dtype: DTypeName | None = None
    num_devices: int | None = None
    command: str = ""
    """To be shown beside the results."""


def evaluate(request: Request, config: EvaluateConfig, progress: bool = True) -> dict[str, Any]:
    """Write OUTPUT/results.json and OUTPUT/index.html, and return the results; what is there already is used again.

    Raises:
        InputError: data that is missing, damaged or does not fit, an output that holds another protocol's results.
    """
    protocol = get_protocol(request.protocol)
    _check(request, config)
    sequences = find_sequences(request.data, protocol)
    folder = request.generated
    counterparts = [] if folder is None else find_counterparts(folder, sequences, protocol.image_fps)
    networks: Networks = {name: load_metric_network(name, *paths) for name, paths in request.weights.items()}
    for sentence in missing_networks(networks):
        logger.warning("%s", sentence)
    _check_owner(request.output, protocol)

    bar = tqdm(sequences, "hashing the true frames", unit="sequence", disable=not progress)
    true = [sha256_video(sequence.reader) for sequence in bar]
    origin: dict[str, Any] = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": request.command,
        "data": str(request.data),
    }
    if request.checkpoint is None:
        pairs = tqdm(list(zip(sequences, true, counterparts, strict=True)), "hashing the videos", disable=not progress)
        comparisons = [
            compare(sequence, sha256, {GENERATED: reader}, protocol, max_frames=config.num_frames)
            for sequence, sha256, reader in pairs
        ]
        _claim(request.output, protocol)
        options = {"num_frames": config.num_frames}
        origin |= {"generated": str(request.generated), "checkpoint": None}
    else:
        comparisons, checkpoint = _make(request.checkpoint, request, config, protocol, sequences, true, progress)
        options = config.result_options
        origin |= {"generated": None, "checkpoint": checkpoint}
    origin |= {"options": options, "options_sha256": sha256_json(options)}

    if sentence := cut_short(comparisons, config.num_frames):
        logger.warning("%s", sentence)
    scorer = Scorer(networks, request.output, progress)
    for comparison in tqdm(comparisons, "scores", unit="sequence", disable=not progress):
        scorer(comparison)
    results = json.loads(json.dumps(collect(protocol, comparisons, scorer, networks, origin)))
    write_text(request.output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_page(request.output, results, comparisons, config.draw_style, progress)
    return results


def _check(request: Request, config: EvaluateConfig) -> None:
    if (request.checkpoint is None) == (request.generated is None):
        raise InputError("give either --checkpoint DIR, to generate videos, or --generated DIR with videos to score.")
    if request.generated is not None:
        given = to_dict(config)
        changed = [key for key, value in to_dict(EvaluateConfig()).items() if value != given[key]]
        if useless := [key for key in changed if key != "num_frames"]:
            raise InputError(f"{useless[0]} has no effect with --generated, which makes no videos; leave it out.")
    output = request.output.resolve()
    for folder in (request.data, request.generated):
        if folder is not None and folder.resolve() in (output, *output.parents):
            raise InputError(f"--output {request.output} lies in {folder}, which is an input; choose another place.")
    check_writable(request.output / "page" / "sequence.mp4")


def _owner(protocol: Protocol) -> dict[str, str]:
    return {"name": protocol.name, "sha256": protocol.sha256}


def _check_owner(output: Path, protocol: Protocol) -> None:
    """A folder belongs to one protocol: numbers of two never meet in it."""
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
    """Make the folder the protocol's, when all input is checked: a run that was refused keeps it from no other."""
    write_text(output / _OWNER, json.dumps(_owner(protocol)) + "\n")


def _make(
    directory: Path,
    request: Request,
    config: EvaluateConfig,
    protocol: Protocol,
    sequences: Sequence[TestSequence],
    true: Sequence[str],
    progress: bool,
) -> tuple[list[Comparison], dict[str, Any]]:
    """Generate what is missing, and the baselines; and say what it was made with."""
    model = open_model(directory, request.dtype, request.num_devices, progress)
    config.plan(1, model.window_size)  # refuses windows that cannot be
    make_task = TaskMaker(protocol, config, model.size_multiple, request.output / "poses", progress)
    tasks = [make_task(sequence, sha) for sequence, sha in zip(sequences, true, strict=True)]
    _claim(request.output, protocol)
    maker = VideoMaker(model, config, request.output, progress)
    folders = {GENERATED: maker.generate(tasks)}
    if config.withhold_poses:
        folders[WITHHELD] = maker.generate(tasks, withhold_poses=True)
    folders[RECONSTRUCTION] = maker.reconstruct(tasks)
    comparisons = []
    for i, task in enumerate(tasks):
        readers = {column: open_video(paths[i], task.keypoints.fps) for column, paths in folders.items()}
        seams = tuple(maker.seams(task))
        comparisons.append(
            compare(task.sequence, task.video_sha256, readers, protocol, task.keypoints, seams, config.num_frames)
        )
    checkpoint = {
        "path": str(directory),
        "manifest_sha256": model.manifest_sha256,
        "weights_sha256": model.weights_sha256,
        "dtype": request.dtype,
    }
    return comparisons, checkpoint
