"""Preferences of a study: the share of answers for the method against each baseline, with Wilson intervals."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mimicmotion_jax.evaluation.records import write_text
from mimicmotion_jax.evaluation.study.files import (
    ANSWERS,
    Answers,
    Choice,
    Study,
    find_answers,
    read_answers,
    read_study,
)
from mimicmotion_jax.pages.render import render
from mimicmotion_jax.runtime.errors import InputError

CONFIDENCE = 0.95
"""Confidence of the intervals."""


def report_study(folder: Path, more: Sequence[Path] = ()) -> tuple[dict[str, Any], list[str]]:
    """Count the answers to a study, and write `report.json` and `report.html`, a page that needs no other file.

    Args:
        folder: of the study; the answers in it count.
        more: further files of answers, or folders of such.

    Returns:
        the report (see `summarise`), and a sentence for each file that is left out or repeats another.

    Raises:
        InputError: no study, a missing file, or no answers.
    """
    study = read_study(folder)
    paths = find_answers([*([folder / ANSWERS] if (folder / ANSWERS).is_dir() else []), *more])
    answers, left_out, repeated = read_answers(paths, study)
    notes = [*left_out, *repeated]
    if not answers:
        raise InputError(f"none of the {len(paths)} files has answers to this study: {notes[0]}")
    report = summarise(study, answers, left_out)
    write_text(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "report.html", report_page(report, notes))
    return report, notes


def preference(preferred: int, total: int) -> dict[str, Any]:
    """Share of answers and its Wilson score interval.

    Args:
        preferred: number of answers for one side.
        total: number of all answers, at least 1.

    Returns:
        `preferred`, `total`, `share` and `interval` (lower and upper end), the last two from 0 to 1.
    """
    from scipy.stats import binomtest  # takes a second to import

    interval = binomtest(preferred, total).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "preferred": preferred,
        "total": total,
        "share": preferred / total,
        "interval": [float(interval.low), float(interval.high)],
    }


def summarise(study: Study, answers: Sequence[Answers], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Count preferences.

    Args:
        study: key of the study.
        answers: one per participant, at least one.
        left_out: sentence for each file that does not count.

    Returns:
        plain values, as `report.json` holds them: `baselines` by name, each with a `preference` and one per clip;
        `left` is the preference for the left side, which should be near one half.
    """
    method, *baselines = study.methods
    choices = [choice for one in answers for choice in one.choices]
    counted: dict[str, dict[str, list[bool]]] = {baseline: defaultdict(list) for baseline in baselines}
    for choice in choices:
        baseline, clip, is_method = _decode(study, choice)
        counted[baseline][clip].append(is_method)
    names = list(dict.fromkeys(clip.name for clip in study.clips.values()))
    return {
        "method": method,
        "study": study.study,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "question": study.question,
        "participants": len(answers),
        "confidence": CONFIDENCE,
        "baselines": {
            baseline: {
                **_count([one for votes in clips.values() for one in votes]),
                "clips": {name: _count(clips[name]) for name in names if name in clips},
            }
            for baseline, clips in counted.items()
        },
        "left": _count([choice.chosen == "left" for choice in choices]),
        "seconds_to_answer": statistics.median(choice.seconds for choice in choices),
        "left_out": list(left_out),
    }


def _count(votes: Sequence[bool]) -> dict[str, Any]:
    return preference(sum(votes), len(votes))


def _decode(study: Study, choice: Choice) -> tuple[str, str, bool]:
    """Baseline and clip of an answer, and True if the method was preferred."""
    left, right = study.clips[choice.left], study.clips[choice.right]
    ours_left = left.method == study.methods[0]
    return (right if ours_left else left).method, left.name, ours_left == (choice.chosen == "left")


def format_table(report: Mapping[str, Any]) -> str:
    """Write the preferences as text, one line per baseline."""
    width = max(len("baseline"), *map(len, report["baselines"]))
    lines = [f"{'baseline':{width}}  {report['method']} preferred  {'95% interval':>15}  answers"]
    for name, counted in report["baselines"].items():
        low, high = counted["interval"]
        share = f"{counted['share']:.1%}".rjust(len(report["method"]) + len(" preferred"))
        lines.append(f"{name:{width}}  {share}  {low:6.1%} – {high:6.1%}  {counted['total']:7}")
    return "\n".join(lines)


def report_page(report: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Return the page: preferences as bars (the paper's figure 6) and as tables."""
    baselines = report["baselines"]
    headings = ["clip", *baselines]
    names = list(dict.fromkeys(name for counted in baselines.values() for name in counted["clips"]))
    rows = [("", [name, *(_fraction(counted["clips"].get(name)) for counted in baselines.values())]) for name in names]
    return render(
        "study_report.html",
        report=report,
        table=(
            ["baseline", f"{report['method']} preferred", "95% interval", "answers"],
            [
                ("", [name, f"{one['share']:.1%}", _interval(one), f"{one['preferred']} of {one['total']}"])
                for name, one in baselines.items()
            ],
        ),
        clips=(headings, rows),
        left=f"{report['left']['share']:.1%} (95% interval {_interval(report['left'])})",
        notes=notes,
    )


def _interval(counted: Mapping[str, Any]) -> str:
    low, high = counted["interval"]
    return f"{low:.1%} – {high:.1%}"


def _fraction(counted: Mapping[str, Any] | None) -> str:
    return "–" if counted is None else f"{counted['preferred']} of {counted['total']}"
