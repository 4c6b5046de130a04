"""Preflight as one HTML page: animations, curves and numbers, all inside the file."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mimicmotion_jax.app.preflight import Part, Preflight
from mimicmotion_jax.inference.survey import Survey
from mimicmotion_jax.pages.media import curves_element, image_element, video_element
from mimicmotion_jax.pages.render import render
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.render import DrawStyle, draw_poses
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.image import Crop, resize

Picture = UInt8[np.ndarray, "h w 3"]

_HEIGHT = 288  # pixels of an animation, and of a picture on the page
_MAX_SHOWN = 72  # frames of an animation
_MIN_RATE = 8.0  # frames per second of an animation: one of a long motion is sped up
_CRF = 26
_DIM = 0.55  # brightness of the picture under a skeleton
_STYLE = DrawStyle(antialias=True, stroke_width=3)
_BOX = (240, 148, 95)
_OTHER_BOX = (200, 205, 214)
_TITLES = {"none": "As it was filmed", "affine": "Affine", "limb": "Limb by limb"}


def preflight_page(preflight: Preflight, seconds: float | None = None) -> str:
    """Return the page, which needs no other file and no network.

    Args:
        preflight: findings.
        seconds: time that generation is expected to take, as measured on this device; None if it is not known.
    """
    survey = preflight.survey
    tempo, speed = _tempo(survey.found)
    people = _people_text(preflight)
    boxes = people_picture(preflight) if len(preflight.people) > 1 else None
    return render(
        "preflight.html",
        image=Path(survey.image_name).name,
        motion=Path(survey.opened.name).name,
        looked_at=_looked_at(preflight),
        problems=preflight.problems,
        animations=[*_source_animation(preflight), *_fit_animations(preflight)],
        tempo=tempo if speed == 1 else f"{tempo} Played {speed:.1f} times as fast.",
        parts_seen=list(preflight.parts),
        curves=_curves(preflight),
        cuts=", ".join(f"{cut:.2f} s" for cut in preflight.cuts[:8]),
        seen=[_part_row(name, part) for name, part in preflight.parts.items()],
        people_text=people,
        people_picture=None if boxes is None else image_element(boxes, "People in the motion, in numbered boxes"),
        people_caption=f"At {preflight.people_frame / survey.found.fps:.2f} s of what is used.",
        reference=image_element(_reference_picture(preflight), "Your picture with the skeleton of the person in it"),
        reference_title="The person" if survey.in_picture is not None else "Nobody found",
        reference_text=_reference_text(preflight),
        original=image_element(_crop_picture(preflight), "Your picture with the part that is used"),
        crop=_crop_text(preflight),
        numbers=_numbers(preflight, seconds),
        notes=[_without_folders(note, survey) for note in preflight.report.notes],
    )


def _without_folders(note: str, survey: Survey) -> str:
    for name in (survey.image_name, survey.pose_name, survey.opened.name):
        note = note.replace(name, Path(name).name)
    return note


def people_picture(preflight: Preflight) -> Picture:
    """Draw the frame that shows most people, with a numbered box around each."""
    background = _backgrounds(preflight)(preflight.people_frame)
    height, width = background.shape[:2]
    picture = np.ascontiguousarray(background)
    for person in preflight.people:
        if person.box is None:
            continue
        colour = _BOX if person.number == preflight.taken else _OTHER_BOX
        corners = np.clip(np.array(person.box), 0, 1) * (width, height, width, height)
        left, top, right, bottom = corners.astype(int).tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
        cv2.rectangle(picture, (left, top), (left + 22, top + 24), colour, cv2.FILLED)
        at = (left + 5, top + 18)
        cv2.putText(picture, str(person.number), at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (20, 20, 20), 2, cv2.LINE_AA)
    return picture


def person_at(preflight: Preflight, x: float, y: float) -> int | None:
    """Number of the person whose box in `people_picture` holds a point; of several the one with the smallest box.

    Args:
        preflight: findings.
        x: fraction of the picture's width.
        y: fraction of its height.
    """
    boxes = {person.number: person.box for person in preflight.people if person.box is not None}
    sizes = {
        number: (right - left) * (bottom - top)
        for number, (left, top, right, bottom) in boxes.items()
        if left <= x <= right and top <= y <= bottom
    }
    return min(sizes, key=lambda number: sizes[number], default=None)


@dataclasses.dataclass(frozen=True)
class _Animation:
    video: Markup
    title: str
    text: str
    chosen: bool = False


def _source_animation(preflight: Preflight) -> list[_Animation]:
    found = preflight.survey.found
    person = found.person(preflight.taken)
    size = _shown_size(found.height, found.width)
    background = _backgrounds(preflight)
    video = _animate(person, size, lambda frame: resize(background(frame), *size), dim=1.0)
    return [_Animation(video, "The motion", "with the skeleton that was found in it")]


def _fit_animations(preflight: Preflight) -> list[_Animation]:
    animations = []
    for name, fit in preflight.fits.items():
        prepared, size = fit.prepared, _shown_size(*preflight.survey.size)
        assert prepared.keypoints is not None
        assert prepared.report.alignment is not None
        picture = resize(prepared.image, *size)
        video = _animate(prepared.keypoints, size, lambda _, picture=picture: picture, dim=_DIM)
        inside = f"{fit.outside:.0%} of the body's points outside" if fit.outside else "all inside"
        notes = "".join(f"; {note}" for note in prepared.report.alignment.notes)
        chosen = name == preflight.options.align or len(preflight.fits) == 1
        animations.append(_Animation(video, f"{_TITLES[name]}: align={name}", f"{inside}{notes}", chosen))
    return animations


def _animate(keypoints: Keypoints, size: tuple[int, int], background: Callable[[int], Picture], dim: float) -> Markup:
    frames = _shown_frames(keypoints)
    shown = keypoints[frames.start : frames.stop : frames.step]
    rate = max(_MIN_RATE, keypoints.fps / frames.step)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.mp4"
        with open_writer(path, rate, size[1], size[0], crf=_CRF, progress=False) as writer:
            for index, frame in enumerate(frames):
                drawn = draw_poses(shown, *size, index, index + 1, _STYLE)[0]
                writer.write(_overlay(background(frame), drawn, dim))
        return video_element(path, (size[1], size[0]))


def _shown_frames(keypoints: Keypoints) -> range:
    return range(0, keypoints.num_frames, -(-keypoints.num_frames // _MAX_SHOWN))


def _tempo(keypoints: Keypoints) -> tuple[str, float]:
    """Describe an animation, and say how much faster than the motion it plays."""
    step = _shown_frames(keypoints).step
    shown = "Every frame that was looked at is shown." if step == 1 else f"One of {step} frames is shown."
    return shown, max(1.0, _MIN_RATE * step / keypoints.fps)


def _overlay(picture: Picture, drawn: Picture, dim: float) -> Picture:
    """Lay a drawn skeleton over a picture; what is drawn bright hides it."""
    brightest = np.maximum(np.maximum(drawn[..., 0], drawn[..., 1]), drawn[..., 2])
    alpha = np.minimum(brightest * np.float32(1 / 90), 1)[..., None]
    return (picture * (np.float32(dim) * (1 - alpha)) + drawn * alpha).astype(np.uint8)


def _backgrounds(preflight: Preflight) -> Callable[[int], Picture]:
    """Pictures of the motion by frame; dark ones where it has none."""
    found = preflight.survey.found
    if preflight.frames:
        return lambda frame: preflight.frames[min(frame, len(preflight.frames) - 1)]
    scale = 360 / min(found.height, found.width)
    dark = np.full((round(found.height * scale), round(found.width * scale), 3), 28, np.uint8)
    drawn = {}

    def picture(frame: int) -> Picture:
        if frame not in drawn:
            drawn.clear()
            drawn[frame] = _overlay(dark, draw_poses(found, *dark.shape[:2], frame, frame + 1, _STYLE)[0], 1.0)
        return drawn[frame]

    return picture


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width on the page, even, as H.264 wants."""
    scale = _HEIGHT / max(height, width)
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def _reference_picture(preflight: Preflight) -> Picture:
    size = _shown_size(*preflight.survey.size)
    prepared = next(iter(preflight.fits.values())).prepared
    picture = resize(prepared.image, *size)
    if preflight.survey.in_picture is None or prepared.reference is None:
        return picture
    return _overlay(picture, draw_poses(prepared.reference, *size, style=_STYLE)[0], 0.75)


def _reference_text(preflight: Preflight) -> str:
    survey = preflight.survey
    if survey.in_picture is None:
        return "The picture shows nobody, so only align=none is possible."
    reference = next(iter(preflight.fits.values())).prepared.reference
    assert reference is not None
    seen = reference.body_score[0, 0] > 0.3
    return f"{seen.sum()} of 18 points of the body are seen, with a mean confidence of {_mean(reference):.2f}."


def _mean(keypoints: Keypoints) -> float:
    return float(np.minimum(keypoints.body_score, 1).mean())


def _crop_picture(preflight: Preflight) -> Picture:
    original = preflight.survey.original
    crop = Crop.plan(original.shape[:2], preflight.survey.size)
    height, width = _shown_size(*original.shape[:2])
    picture = resize(original, height, width)
    low = np.array(crop.offset) / crop.resized
    high = (np.array(crop.offset) + crop.target) / crop.resized
    (top, left), (bottom, right) = (np.rint(edge * (height, width)).astype(int) for edge in (low, high))
    shown = (picture * 0.3).astype(np.uint8)
    shown[top:bottom, left:right] = picture[top:bottom, left:right]
    cv2.rectangle(shown, (int(left), int(top)), (int(right) - 1, int(bottom) - 1), _BOX, 2)
    return shown


def _crop_text(preflight: Preflight) -> str:
    (rows, columns), (height, width) = preflight.survey.original.shape[:2], preflight.survey.size
    lost = "nothing falls away" if preflight.kept > 0.995 else f"{1 - preflight.kept:.0%} falls away"
    return f"{columns}x{rows} pixels become {width}x{height}; {lost}."


def _looked_at(preflight: Preflight) -> str:
    survey = preflight.survey
    looked, fps = len(survey.wanted), survey.opened.fps
    if looked == survey.num_frames:
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
    steps, guided = options.num_inference_steps, options.guidance_scale > 1
    calls = preflight.num_windows * steps * (2 if guided else 1)
    windows = f"{preflight.num_windows} window{'s' if preflight.num_windows > 1 else ''}"
    time = "not known on this device" if seconds is None else f"about {_duration(seconds)}"
    memory = "not known for this model" if preflight.memory is None else f"about {preflight.memory / 1e9:.0f} GB"
    return [
        ("Length", _duration(survey.num_frames / preflight.fps), f"{survey.num_frames} frames"),
        ("Frame rate", f"{preflight.fps:.5g} per second", "the motion's tempo stays"),
        ("Size", f"{width}x{height}", "pixels"),
        ("Work", f"{calls:,} calls", f"of the UNet: {windows}, {steps} steps{', with guidance' if guided else ''}"),
        ("Time", time, "" if seconds is None else "as measured on this device"),
        ("Memory", memory, "" if preflight.memory is None else "of a GPU or TPU, in bfloat16 (estimated)"),
        ("Sound", "yes" if survey.opened.sound else "none", "of the motion" if survey.opened.sound else ""),
    ]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
