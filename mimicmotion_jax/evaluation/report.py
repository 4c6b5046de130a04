"""Results as one HTML page that needs no other file."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from tqdm import tqdm

from mimicmotion_jax.evaluation.comparison import GENERATED, LABELS, TRUE, Comparison
from mimicmotion_jax.evaluation.figures import panel_labels, slice_element, write_panels
from mimicmotion_jax.evaluation.records import write_text
from mimicmotion_jax.evaluation.results import METRICS
from mimicmotion_jax.pages.media import curves_element, video_element
from mimicmotion_jax.pages.render import render
from mimicmotion_jax.pose.render import DrawStyle

MAX_SHOWN = 12
"""Largest number of sequences whose videos are on the page, to keep it small; the tables have all sequences."""

_Table = tuple[list[str], list[tuple[str, list[str]]]]
"""Headings of a table, and for each row its class and cells."""

_ARROWS = {"lower": "↓", "higher": "↑"}


def write_page(
    output: Path, results: Mapping[str, Any], comparisons: Sequence[Comparison], style: DrawStyle, progress: bool = True
) -> None:
    """Write OUTPUT/index.html, and OUTPUT/page/NAME.mp4 with its videos.

    Args:
        output: folder of the run.
        results: content of `results.json`.
        comparisons: the sequences of `results`, in the same order.
        style: drawing style of the poses.
        progress: show a progress bar.
    """
    shown = list(zip(results["sequences"], comparisons, strict=True))[:MAX_SHOWN]
    bar = tqdm(shown, "page", unit="sequence", disable=not progress)
    cards = [_sequence_card(output, row, comparison, style) for row, comparison in bar]
    write_text(output / "index.html", page(results, cards))


def page(results: Mapping[str, Any], cards: Sequence[str]) -> str:
    """Return the page, given the results and one piece of HTML per shown sequence."""
    name, total = results["protocol"]["name"], len(results["sequences"])
    seams = any(row["seams"] for row in results["sequences"])
    marks = "Orange marks are frames at which the windows of the generated video change." if seams else ""
    left_out = f" Shown are the first {len(cards)}; the numbers are of all {total}." if len(cards) < total else ""
    return render(
        "evaluation.html",
        name=name,
        total=total,
        date=results["date"],
        digest=results["protocol"]["sha256"][:12],
        summary=_summary_table(results),
        above=f"{results['psnr_above_repeat']:+.2f}",
        differences=_mean_differences(results),
        notes=results["notes"],
        facts=_facts(results),
        marks=marks,
        left_out=left_out,
        cards=[Markup(card) for card in cards],
        sequences=_sequence_table(results),
        raw=json.dumps(results, indent=1, allow_nan=False),
    )


def _sequence_card(output: Path, row: Mapping[str, Any], comparison: Comparison, style: DrawStyle) -> str:
    generated, true = comparison.frames(GENERATED), comparison.frames(TRUE)
    path = output / "page" / f"{row['name']}.mp4"
    write_panels(path, comparison, generated, true, style)
    labels = "".join(f"<span>{label}</span>" for label in panel_labels(comparison))
    scores = row["scores"][GENERATED]
    numbers = " · ".join(f"{METRICS[key].label} {value:.{METRICS[key].digits}f}" for key, value in scores.items())
    curves = {name: row["differences"][name] for name in (TRUE, GENERATED)}
    seams = row["seams"]
    return f"""<section class="card">
<h3>{html.escape(row["name"])} <span class="soft">{html.escape(numbers)}</span></h3>
{video_element(path)}
<div class="labels soft">{labels}</div>
<p class="legend"><b>Difference between consecutive frames</b>, mean of all pixels, 0 to 1:
<span class="true">true</span>, <span class="generated">generated</span>{_seam_text(row)}</p>
{curves_element(curves, [seam - 1 for seam in seams], f"frame differences of {row['name']}") if len(true) > 1 else ""}
<p class="legend"><b>y-t slices</b> of the middle column, time to the right</p>
<div class="columns">{slice_element(generated, seams, "generated")}{slice_element(true, seams, "true")}</div>
</section>
"""


def _summary_table(results: Mapping[str, Any]) -> _Table:
    summary = results["summary"]
    return ["", *_headings(summary)], [
        (column, [LABELS[column], *_cells(summary[column], summary)]) for column in summary
    ]


def _sequence_table(results: Mapping[str, Any]) -> _Table:
    shown = results["summary"]
    rows, classes = [], []
    for row in results["sequences"]:
        frames = row["frames"]
        for column, scores in row["scores"].items():
            ratio = row["seam_discontinuity"].get(column)
            rows.append(
                [
                    row["name"],
                    LABELS[column],
                    f"{frames['compared']} of {frames['true']}",
                    "×".join(map(str, reversed(row["size"]))),
                    *_cells(scores, shown, per_sequence=True),
                    "–" if ratio is None else f"{ratio:.3f}",
                ]
            )
            classes.append(column)
    headings = ["sequence", "", "frames", "size", *_headings(shown, per_sequence=True), "at seams"]
    return headings, list(zip(classes, rows, strict=True))


def _shown_metrics(summary: Mapping[str, Any], per_sequence: bool) -> list[str]:
    found = [name for name in METRICS if any(name in scores for scores in summary.values())]
    return [name for name in found if not per_sequence or name not in ("fid_vid", "fvd")]


def _headings(summary: Mapping[str, Any], per_sequence: bool = False) -> list[str]:
    metrics = [METRICS[name] for name in _shown_metrics(summary, per_sequence)]
    return [f"{metric.label} {_ARROWS[metric.better]}" for metric in metrics]


def _cells(scores: Mapping[str, float], summary: Mapping[str, Any], per_sequence: bool = False) -> list[str]:
    names = _shown_metrics(summary, per_sequence)
    return [f"{scores[name]:.{METRICS[name].digits}f}" if name in scores else "–" for name in names]


def _mean_differences(results: Mapping[str, Any]) -> str:
    numbers = [f"{LABELS.get(name, name)} {value:.5f}" for name, value in results["frame_difference"].items()]
    return "Mean difference between consecutive frames (0 to 1): " + " · ".join(numbers) if numbers else ""


def _seam_text(row: Mapping[str, Any]) -> str:
    ratios = {name: ratio for name, ratio in row["seam_discontinuity"].items() if ratio is not None}
    if not ratios:
        return ""
    numbers = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
    return f"; ratio of differences at seams to those elsewhere: {numbers}"


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    protocol, checkpoint = results["protocol"], results["checkpoint"]
    facts = {
        "Protocol": f"{protocol['name']}: {protocol['source']}",
        "Protocol, SHA-256": protocol["sha256"],
        "Command": results["command"],
        "Data": results["data"],
    }
    if checkpoint is None:
        facts["Videos"] = results["generated"]
    else:
        facts["Checkpoint"] = checkpoint["path"]
        facts["Manifest, SHA-256"] = checkpoint["manifest_sha256"]
        facts["Weights, SHA-256"] = checkpoint["weights_sha256"]
    facts["Options"] = ", ".join(f"{key}={json.dumps(value)}" for key, value in results["options"].items())
    facts["Options, SHA-256"] = results["options_sha256"]
    for network, files in results["networks"].items():
        for name, sha256 in files.items():
            facts[f"{network}, SHA-256 of {name}"] = sha256
    return [(key, str(fact)) for key, fact in facts.items()]
