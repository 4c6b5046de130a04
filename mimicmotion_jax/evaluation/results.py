"""Results of a run (`results.json`): means, Frechet distances, and the hashes and notes that belong to them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mimicmotion_jax.convert.metric_networks import required_files
from mimicmotion_jax.evaluation.comparison import GENERATED, REPEAT, TRUE, Comparison
from mimicmotion_jax.evaluation.protocols import RULES, Protocol
from mimicmotion_jax.evaluation.scores import Networks, Scorer
from mimicmotion_jax.metrics import frechet_distance
from mimicmotion_jax.metrics.features import WINDOW
from mimicmotion_jax.metrics.network import NetworkName


class Metric(NamedTuple):
    """Label and format of a metric."""

    label: str
    better: str
    digits: int
    network: NetworkName | None = None


METRICS = {
    "fid_vid": Metric("FID-VID", "lower", 2, "resnet3d"),
    "fvd": Metric("FVD", "lower", 1, "i3d"),
    "ssim": Metric("SSIM", "higher", 4),
    "psnr": Metric("PSNR, dB", "higher", 2),
    "lpips": Metric("LPIPS", "lower", 4, "lpips"),
    "foreground_iou": Metric("Foreground IoU", "higher", 4),
    "hand_psnr": Metric("PSNR of hands, dB", "higher", 2),
}
"""Metrics by name in `results.json`, in the order of the tables; the first four are the paper's."""


def missing_networks(networks: Networks) -> list[str]:
    """Return a sentence for every metric that cannot be computed, naming the missing files and their source."""
    return [
        f"{metric.label} is not computed without --{metric.network}: {required_files(metric.network)}"
        for metric in METRICS.values()
        if metric.network is not None and metric.network not in networks
    ]


def describe_short_videos(comparisons: Sequence[Comparison], max_frames: int | None) -> str | None:
    """Return a warning about generated videos that are shorter than the true ones; None if there are none.

    Args:
        comparisons: all sequences.
        max_frames: largest number of compared frames that was asked for; None: all.
    """
    short = []
    for comparison in comparisons:
        wanted = comparison.lengths["true"] if max_frames is None else min(comparison.lengths["true"], max_frames)
        if comparison.num_frames < wanted:
            short.append(f"{comparison.name} {comparison.num_frames} of {wanted}")
    if not short:
        return None
    more = f" and {len(short) - 20} more" if len(short) > 20 else ""
    return (
        "generated videos are shorter than the true ones, and means over fewer frames do not compare with others; "
        f"compared after the reference: {', '.join(short[:20])}{more}."
    )


def collect(
    protocol: Protocol,
    comparisons: Sequence[Comparison],
    scores: Mapping[str, Mapping[str, Any]],
    scorer: Scorer,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect the results of a run as JSON values: `protocol`, `networks`, `notes`, `summary`, `sequences`, `origin`'s.

    Args:
        protocol: the protocol of the run.
        comparisons: scored sequences, in the protocol's order.
        scores: results of `scorer` by name of the sequence.
        scorer: reads the features.
        origin: paths, hashes, options, date and command of the run, and "left_out": reasons by name of the sequence.
    """
    networks = scorer.networks
    records = [scores[comparison.name] for comparison in comparisons]
    notes = [f"sequence {name} is left out: {reason}" for name, reason in origin["left_out"].items()]
    notes += missing_networks(networks)
    columns = comparisons[0].columns
    summary = {column: _means([record["columns"][column] for record in records]) for column in columns}
    for name in ("fid_vid", "fvd"):
        network = METRICS[name].network
        if network is not None and network in networks:
            distances, note = _frechet(scorer, network, comparisons, columns)
            notes += [f"{METRICS[name].label}: {note}"] if note else []
            for column, distance in distances.items():
                summary[column][name] = distance
    rows = [_row(comparison, record) for comparison, record in zip(comparisons, records, strict=True)]
    notes += [
        f"{row['name']}: the true video has {row['frames']['true']} frames after the reference and the generated one "
        f"{row['frames']['generated']}; {row['frames']['compared']} were compared."
        for row in rows
        if row["frames"]["true"] != row["frames"]["generated"]
    ]
    return {
        "protocol": {
            "name": protocol.name,
            "sha256": protocol.sha256,
            "rules": RULES,
            **dataclasses.asdict(protocol),
        },
        **origin,
        "networks": {name: dict(network.sha256) for name, network in networks.items()},
        "notes": notes,
        "summary": {column: _in_order(scores) for column, scores in summary.items()},
        "psnr_above_repeat": _difference(summary, GENERATED, REPEAT, "psnr"),
        "frame_difference": _mean_differences(records, (TRUE, *columns)),
        "sequences": rows,
    }


def _row(comparison: Comparison, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "sha256": {
            "true": comparison.sequence.sha256,
            **comparison.files_sha256,
            **{name: video.sha256 for name, video in comparison.videos.items()},
        },
        "frames": comparison.lengths,
        "size": list(comparison.region.size),
        "scores": {column: _in_order(_means([scores])) for column, scores in record["columns"].items()},
        "differences": record["differences"],
        "seams": record["seams"],
        "seam_discontinuity": record["seam_discontinuity"],
    }


def _means(parts: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, float]:
    """Average each metric over all frames with a value, of all parts together."""
    means = {}
    for name in METRICS:
        values = [value for part in parts for value in part.get(name, ()) if value is not None]
        if values:
            means[name] = float(np.mean(values))
    return means


def _frechet(
    scorer: Scorer, network: NetworkName, comparisons: Sequence[Comparison], columns: Sequence[str]
) -> tuple[dict[str, float], str | None]:
    """Return the distance of each column from the true videos, and a note if sequences are left out."""
    long_enough = [comparison for comparison in comparisons if comparison.num_frames >= WINDOW]
    windows = sum(comparison.num_frames - WINDOW + 1 for comparison in long_enough)
    short = ", ".join(c.name for c in comparisons if c.num_frames < WINDOW)
    if windows < 2:
        return {}, f"not computed, it needs two windows of {WINDOW} frames and there are {windows}."
    pooled = {
        column: np.concatenate([scorer.features(network, comparison, column) for comparison in long_enough])
        for column in (TRUE, *columns)
    }
    distances = {column: frechet_distance(pooled[column], pooled[TRUE]) for column in columns}
    return distances, f"leaves out {short}, which have fewer than {WINDOW} frames." if short else None


def _mean_differences(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, float]:
    pooled = {column: [value for record in records for value in record["differences"][column]] for column in columns}
    return {column: float(np.mean(values)) for column, values in pooled.items() if values}


def _difference(summary: Mapping[str, Mapping[str, float]], a: str, b: str, name: str) -> float:
    return summary[a][name] - summary[b][name]


def _in_order(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: scores[name] for name in METRICS if name in scores}
