"""Preflight as one HTML page: animations, curves and numbers, all inside the file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from mimicmotion_jax.app import preflight_pictures as pictures
from mimicmotion_jax.app.findings import SEEN, Part
from mimicmotion_jax.app.preflight import Preflight
from mimicmotion_jax.inference.survey import Survey
from mimicmotion_jax.pages.media import curves_element, image_element
from mimicmotion_jax.pages.render import duration, render


def preflight_page(preflight: Preflight, seconds: float | None = None) -> str:
    """Return the page, which needs no other file and no network.

    Args:
        preflight: findings.
        seconds: time that generation is expected to take, as measured on this device; None if it is not known.
    """
    survey = preflight.survey
    boxes = pictures.people_picture(preflight) if len(preflight.people) > 1 else None
    return render(
        "preflight.html",
        image=Path(survey.image_name).name,
        motion=Path(survey.opened.name).name,
        looked_at=_looked_at(preflight),
        problems=preflight.problems,
        animations=pictures.animations(preflight),
        tempo=pictures.tempo(survey.found),
        parts_seen=list(preflight.parts),
        curves=_curves(preflight),
        cuts=", ".join(f"{cut:.2f} s" for cut in preflight.cuts[:8]),
        seen=[_part_row(name, part) for name, part in preflight.parts.items()],
        people_text=_people_text(preflight),
        people_picture=None if boxes is None else image_element(boxes, "People in the motion, in numbered boxes"),
        people_caption=f"At {preflight.people_frame / survey.found.fps:.2f} s of what is used.",
        reference=image_element(
            pictures.reference_picture(preflight), "Your picture with the skeleton of the person in it"
        ),
        reference_title="The person" if survey.in_picture is not None else "Nobody found",
        reference_text=_reference_text(preflight),
        original=image_element(pictures.crop_picture(preflight), "Your picture with the part that is used"),
        crop=_crop_text(preflight),
        numbers=_numbers(preflight, seconds),
        notes=[_without_folders(note, survey) for note in preflight.report.notes],
    )


def _without_folders(note: str, survey: Survey) -> str:
    for name in (survey.image_name, survey.pose_name, survey.opened.name):
        note = note.replace(name, Path(name).name)
    return note


def _reference_text(preflight: Preflight) -> str:
    survey = preflight.survey
    if survey.in_picture is None:
        return "The picture shows nobody, so only align=none is possible."
    reference = next(iter(preflight.fits.values())).prepared.reference
    assert reference is not None
    scores = reference.body_score[0, 0]
    mean = np.minimum(scores, 1).mean()
    return f"{(scores > SEEN).sum()} of 18 points of the body are seen, with a mean confidence of {mean:.2f}."


def _crop_text(preflight: Preflight) -> str:
    (rows, columns), (height, width) = preflight.survey.original.shape[:2], preflight.survey.size
    lost = "nothing falls away" if preflight.kept > 0.995 else f"{1 - preflight.kept:.0%} falls away"
    return f"{columns}x{rows} pixels become {width}x{height}; {lost}."


def _looked_at(preflight: Preflight) -> str:
    survey = preflight.survey
    looked, fps = len(survey.wanted), survey.opened.fps
    if survey.is_complete:
        return f"all {looked} frames looked at"
    end = (survey.wanted[-1] + survey.wanted.step) / fps
    return (
        f"{looked} of {survey.num_frames} frames looked at: one of {survey.wanted.step}, from "
        f"{survey.wanted.start / fps:.1f} s to {end:.1f} s"
    )


def _curves(preflight: Preflight) -> Markup:
    fps = preflight.survey.found.fps
    parts = {name.replace(" ", "-"): part.confidence.tolist() for name, part in preflight.parts.items()}
    last = preflight.survey.found.num_frames - 1
    ticks = {place: f"{place / fps:.1f} s" for place in sorted({0, last // 2, last})}
    marks = [cut * fps for cut in preflight.cuts]
    return curves_element(parts, marks, "confidence in each part of the body over time", top=1.0, ticks=ticks)


def _part_row(name: str, part: Part) -> tuple[str, Sequence[str]]:
    stretches = [f"{first:.1f}–{last:.1f} s" for first, last in part.lost[:4]]
    more = f" and {len(part.lost) - 4} more" if len(part.lost) > 4 else ""
    lost = ", ".join(stretches) + more if stretches else "–"
    return name.replace(" ", "-"), (name, f"{part.seen:.0%}", f"{part.confidence.mean():.2f}", lost)


def _people_text(preflight: Preflight) -> str:
    people = preflight.people
    if len(people) == 1:
        return f"One person, seen in {people[0].seen:.0%} of the frames."
    listed = ", ".join(f"{person.number} (in {person.seen:.0%} of the frames)" for person in people)
    return (
        f"{len(people)} people, from left to right {listed}. Person {preflight.taken} is followed; the option person "
        "takes another."
    )


def _numbers(preflight: Preflight, seconds: float | None) -> list[tuple[str, str, str]]:
    survey, options = preflight.survey, preflight.options
    height, width = survey.size
    steps, guided = options.num_steps, options.guided
    calls = preflight.num_windows * options.unet_calls
    windows = f"{preflight.num_windows} window{'s' if preflight.num_windows > 1 else ''}"
    time = "not known on this device" if seconds is None else f"about {duration(seconds)}"
    memory = "not known for this model" if preflight.memory is None else f"about {preflight.memory / 1e9:.0f} GB"
    return [
        ("Length", duration(survey.num_frames / preflight.fps), f"{survey.num_frames} frames"),
        ("Frame rate", f"{preflight.fps:.5g} per second", "the motion's tempo stays"),
        ("Size", f"{width}x{height}", "pixels"),
        ("Work", f"{calls:,} calls", f"of the UNet: {windows}, {steps} steps{', with guidance' if guided else ''}"),
        ("Time", time, "until a video of this size was made" if seconds is None else "as measured on this device"),
        ("Memory", memory, "" if preflight.memory is None else "of a GPU or TPU, in bfloat16 (estimated)"),
        ("Sound", "yes" if survey.opened.sound else "none", "of the motion" if survey.opened.sound else ""),
    ]
