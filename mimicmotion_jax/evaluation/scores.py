"""Scores of one sequence per frame and column, and the features for Frechet distances.

    OUTPUT/scores/NAME.json                   see `Scorer.__call__`
    OUTPUT/features/NETWORK/NAME.COLUMN.npz   `features` [windows, d], and the hash of their inputs, `key`

Both are reused until anything that they depend on changes.
"""

import io
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mimicmotion_jax.evaluation.comparison import GENERATED, TRUE, Comparison
from mimicmotion_jax.evaluation.protocols import RULES
from mimicmotion_jax.evaluation.records import read_record, sha256_json, write_record
from mimicmotion_jax.metrics import (
    MetricNetwork,
    clip_features,
    foreground,
    frame_differences,
    intersection_over_union,
    lpips,
    psnr,
    seam_discontinuity,
    ssim,
)
from mimicmotion_jax.metrics.features import WINDOW
from mimicmotion_jax.metrics.frames import PSNR_LIMIT
from mimicmotion_jax.metrics.network import NetworkName
from mimicmotion_jax.runtime.atomic_files import write_file

logger = logging.getLogger(__name__)

Networks = Mapping[NetworkName, MetricNetwork]
"""Loaded metric networks: any of "i3d", "resnet3d", "lpips"."""

CLIP_NETWORKS: tuple[NetworkName, ...] = ("resnet3d", "i3d")
"""Networks whose features of clips are compared by a Frechet distance."""


class Scorer:
    """Computes missing scores and features of sequences.

    Args:
        networks: loaded metric networks.
        output: folder of the run.
        progress: show progress bars.
    """

    def __init__(self, networks: Networks, output: Path, progress: bool = True):
        self.networks, self._output, self._progress = networks, output, progress

    def __call__(self, comparison: Comparison) -> dict[str, Any]:
        """Return the scores of a sequence, reading them from its record if it is current.

            columns              {column: {"psnr", "ssim", …: a value per frame, or null}}
            differences          {"true" or column: mean absolute difference to the next frame, 0 to 1}
            seams                frames at which the generated video's windows change
            seam_discontinuity   {"true" or "generated": ratio or null}

        Raises:
            InputError: a video cannot be read.
        """
        path = self._output / "scores" / f"{comparison.sequence.name}.json"
        key = self._key(comparison)
        record = read_record(path, key)
        if record is not None and not _is_complete(record, comparison):
            record = None
        features: list[tuple[NetworkName, str]] = [
            (network, column)
            for network in CLIP_NETWORKS
            if network in self.networks and comparison.num_frames >= WINDOW
            for column in (TRUE, *comparison.columns)
            if self._read_features(network, comparison, column) is None
        ]
        if record is not None and not features:
            return record
        logger.info("scoring %s", comparison.sequence.name)
        true = comparison.frames(TRUE)
        background, hands = comparison.background(), comparison.hands()
        columns, differences = {}, {TRUE: _differences(true)}
        for column in (TRUE, *comparison.columns):
            frames = true if column == TRUE else comparison.frames(column)
            if record is None and column != TRUE:
                columns[column] = self._score(frames, true, background, hands, comparison.foreground_threshold)
                differences[column] = _differences(frames)
            for name, missing in features:
                if missing == column:
                    self._write_features(name, comparison, column, frames)
        if record is not None:
            return record
        seams = {name: _seam(differences[name], comparison.seams) for name in (TRUE, GENERATED)}
        content = {"columns": columns, "differences": differences, "seams": list(comparison.seams)}
        return write_record(path, key, content | {"seam_discontinuity": seams})

    def features(self, network: NetworkName, comparison: Comparison, column: str) -> Float[np.ndarray, "windows d"]:
        """Read the features of a column (or of the true frames) of a scored comparison; empty for short videos."""
        found = self._read_features(network, comparison, column)
        return np.zeros((0, 0), np.float32) if found is None else found

    def _score(
        self,
        frames: UInt8[np.ndarray, "f h w 3"],
        true: UInt8[np.ndarray, "f h w 3"],
        background: UInt8[np.ndarray, "h w 3"] | None,
        hands: Bool[np.ndarray, "f h w"] | None,
        threshold: int,
    ) -> dict[str, list[float | None]]:
        scores = {"ssim": ssim(frames, true), "psnr": psnr(frames, true)}
        if "lpips" in self.networks:
            scores["lpips"] = lpips(self.networks["lpips"], frames, true, progress=self._progress)
        if background is not None:
            masks = (foreground(video, background, threshold) for video in (frames, true))
            scores["foreground_iou"] = intersection_over_union(*masks)
        if hands is not None:
            scores["hand_psnr"] = psnr(frames, true, hands)
        return {name: numbers(np.minimum(v, PSNR_LIMIT) if "psnr" in name else v) for name, v in scores.items()}

    def _key(self, comparison: Comparison) -> str:
        network = self.networks.get("lpips")
        made_from = [comparison.identity(column) for column in (TRUE, *comparison.columns)]
        return sha256_json([RULES, made_from, comparison.score_inputs(), dict(network.sha256) if network else None])

    def _features_path(self, network: NetworkName, comparison: Comparison, column: str) -> Path:
        return self._output / "features" / network / f"{comparison.sequence.name}.{column}.npz"

    def _features_key(self, network: NetworkName, comparison: Comparison, column: str) -> str:
        return sha256_json([RULES, dict(self.networks[network].sha256), comparison.identity(column)])

    def _read_features(
        self, network: NetworkName, comparison: Comparison, column: str
    ) -> Float[np.ndarray, "n d"] | None:
        try:
            with np.load(self._features_path(network, comparison, column), allow_pickle=False) as file:
                current = str(file["key"]) == self._features_key(network, comparison, column)
                return file["features"] if current else None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None

    def _write_features(self, network: NetworkName, comparison: Comparison, column: str, frames: np.ndarray) -> None:
        path = self._features_path(network, comparison, column)
        path.parent.mkdir(parents=True, exist_ok=True)
        features = clip_features(self.networks[network], frames, progress=self._progress)
        content = io.BytesIO()
        np.savez(content, features=features, key=self._features_key(network, comparison, column))
        write_file(path, content.getvalue())


def _is_complete(record: dict[str, Any], comparison: Comparison) -> bool:
    """Return True if a record, which may have been edited, has everything that `Scorer` writes."""
    columns, differences = record.get("columns"), record.get("differences")
    if not isinstance(columns, dict) or not isinstance(differences, dict):
        return False
    complete = {*comparison.columns} <= {*columns} and {TRUE, *comparison.columns} <= {*differences}
    return complete and {"seams", "seam_discontinuity"} <= {*record}


def numbers(values: Iterable[float]) -> list[float | None]:
    """Convert values for JSON; NaN and infinity become None."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _differences(frames: UInt8[np.ndarray, "f h w 3"]) -> list[float | None]:
    return numbers(frame_differences(frames)) if len(frames) > 1 else []


def _seam(differences: list[float | None], seams: tuple[int, ...]) -> float | None:
    if not seams or len(seams) >= len(differences):
        return None
    return numbers([seam_discontinuity(np.array(differences, np.float64), seams)])[0]
