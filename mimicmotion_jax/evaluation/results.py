"""From scores to `results.json`: means, Frechet distances, and all that a number needs beside it to mean something."""

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
    """How a number is shown."""

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
"""By their names in `results.json`, in the order in which they are shown; the first four are the paper's."""


def missing_networks(networks: Networks) -> list[str]:
    """One sentence for every metric that cannot be computed: which file is missing, and where it comes from."""
    return [
        f"{metric.label} is not computed without --{metric.network}: {required_files(metric.network)}"
        for metric in METRICS.values()
        if metric.network is not None and metric.network not in networks
    ]


def cut_short(comparisons: Sequence[Comparison], max_frames: int | None) -> str | None:
    """What is to be said of generated videos that are shorter than the true ones; None where none is.

    Args:
        comparisons: of a run.
        max_frames: after the reference, more of which nobody asked for; None: all.
    """
    short = []
    for comparison in comparisons:
        wanted = comparison.lengths["true"] if max_frames is None else min(comparison.lengths["true"], max_frames)
        if comparison.num_frames < wanted:
            short.append(f"{comparison.sequence.name} {comparison.num_frames} of {wanted}")
    if not short:
        return None
    more = f" and {len(short) - 20} more" if len(short) > 20 else ""
    return (
        "generated videos are shorter than the true ones, and means over fewer frames do not compare with others; "
        f"compared after the reference: {', '.join(short[:20])}{more}."
    )


def collect(
    protocol: Protocol, comparisons: Sequence[Comparison], scorer: Scorer, networks: Networks, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """The results of a run, for JSON: `protocol`, `origin`, `networks`, `notes`, `summary` and `sequences`.

    Args:
        protocol: that was followed.
        comparisons: in the protocol's order; scores that are missing are computed.
        scorer: computes them.
        networks: that were at hand.
        origin: where the videos come from: paths, hashes, options, date, command.
    """
    records = [scorer(comparison) for comparison in comparisons]
    notes = missing_networks(networks)
    columns = comparisons[0].columns
    summary = {column: _means([record["columns"][column] for record in records]) for column in columns}
    for name in ("fid_vid", "fvd"):
        if METRICS[name].network in networks:
            distances, note = _frechet(scorer, METRICS[name].network, comparisons, columns)
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
        "name": comparison.sequence.name,
        "sha256": {
            "true": comparison.true_sha256,
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
    """Means over all frames of all parts that have a value."""
    means = {}
    for name in METRICS:
        values = [value for part in parts for value in part.get(name, ()) if value is not None]
        if values:
            means[name] = float(np.mean(values))
    return means


def _frechet(
    scorer: Scorer, network: str, comparisons: Sequence[Comparison], columns: Sequence[str]
) -> tuple[dict[str, float], str | None]:
    """The distance of each column from the truth, and what has to be said about it."""
    long_enough = [comparison for comparison in comparisons if comparison.num_frames >= WINDOW]
    windows = sum(comparison.num_frames - WINDOW + 1 for comparison in long_enough)
    short = ", ".join(c.sequence.name for c in comparisons if c.num_frames < WINDOW)
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
