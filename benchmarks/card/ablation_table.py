"""Rows of the paper's ablation (section 4.3, table 2), their mean and spread over seeds, and the table in Markdown.

For `benchmarks/ablation.py`, which measures with the commands of the package, and for `gpu.py --only ablation`.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from card import stand_in
from mimicmotion_jax.diffusion.fusion import FusionMode

SEAM, TRUE_SEAM, MISTAKEN = "seam_discontinuity", "seam_discontinuity_true", "mistaken_hand_psnr"

COLUMNS = {
    "fid_vid": ("FID-VID ↓", 2),
    "fvd": ("FVD ↓", 1),
    stand_in.FID_VID: ("stand-in for FID-VID ↓", 2),
    stand_in.FVD: ("stand-in for FVD ↓", 2),
    "ssim": ("SSIM ↑", 4),
    "psnr": ("PSNR, dB ↑", 2),
    "hand_psnr": ("PSNR of hands, dB ↑", 2),
    MISTAKEN: ("where they are mistaken ↑", 2),
    SEAM: ("Seam discontinuity", 3),
    TRUE_SEAM: ("the true videos'", 3),
}
"""Heading and number of decimals of each score; a table shows those that it has."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """Row of the table; the defaults are the complete method."""

    name: str
    hand_weight: float = 10.0
    confidence: Literal["brightness", "threshold"] = "brightness"
    fusion: FusionMode = "progressive"

    @property
    def ticks(self) -> list[str]:
        """First columns of the paper's table: hand enhancement, confidence, progressive fusion."""
        parts = (self.hand_weight > 1, self.confidence == "brightness", self.fusion == "progressive")
        return ["✓" if part else "" for part in parts]


FULL = Variant("full")
VARIANTS = {
    variant.name: variant
    for variant in (
        FULL,
        Variant("no hand enhancement", hand_weight=1.0),
        Variant("no confidence", confidence="threshold"),
        Variant("uniform fusion", fusion="uniform"),
        Variant("no fusion", fusion="none"),
    )
}


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compute mean and sample standard deviation over the seeds per variant (None for one seed).

    Args:
        rows: `name` of a variant, `seed`, and `scores` by column.
    """
    table = []
    for name in VARIANTS:
        found = [row for row in rows if row["name"] == name]
        values = {key: [row["scores"].get(key) for row in found] for key in COLUMNS}
        known = {key: column for key, column in values.items() if column and None not in column}
        if found:
            mean = {key: statistics.fmean(column) for key, column in known.items()}
            spread = {key: statistics.stdev(column) if len(column) > 1 else None for key, column in known.items()}
            table.append({"name": name, "seeds": [row["seed"] for row in found], "mean": mean, "spread": spread})
    return table


def format_table(table: Sequence[Mapping[str, Any]], baselines: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Format a summary as lines of a Markdown table.

    Args:
        table: from `summarise`.
        baselines: scores by label, shown in italics.
    """
    known = set().union(*(entry["mean"] for entry in table))
    shown = [column for column in COLUMNS if column in known]
    head = ["", "Hand", "Conf.", "Prog.", "Seeds", *(COLUMNS[column][0] for column in shown)]
    lines = [head, ["---"] * len(head)]
    for entry in table:
        seeds = ", ".join(map(str, entry["seeds"]))
        cells = [_cell(entry, column) for column in shown]
        lines.append([entry["name"], *VARIANTS[entry["name"]].ticks, seeds, *cells])
    for label, scores in baselines.items():
        cells = [f"{scores[column]:.{COLUMNS[column][1]}f}" if column in scores else "" for column in shown]
        lines.append([f"*{label}*", "", "", "", "", *cells])
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(entry: Mapping[str, Any], column: str) -> str:
    mean, spread, digits = entry["mean"].get(column), entry["spread"].get(column), COLUMNS[column][1]
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
