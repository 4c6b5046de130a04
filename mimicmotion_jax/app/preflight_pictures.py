"""Pictures of a preflight: skeletons over what they belong to, people in boxes, the crop."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mimicmotion_jax.app.preflight import Preflight
from mimicmotion_jax.pages.media import video_element
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


@dataclasses.dataclass(frozen=True)
class Animation:
    """A video on the page.

    Attributes:
        video: element of the page.
        title: heading below it.
        text: what is to be known about it.
        chosen: it shows what the options ask for.
    """

    video: Markup
    title: str
    text: str
    chosen: bool = False


def animations(preflight: Preflight) -> list[Animation]:
    """Animate the motion as it was given, and over the reference image under each alignment."""
    return [_source_animation(preflight), *(_fit_animation(preflight, name) for name in preflight.fits)]


def _source_animation(preflight: Preflight) -> Animation:
    found = preflight.survey.found
    person = found.person(preflight.taken)
    size = _shown_size(found.height, found.width)
    background = _backgrounds(preflight)
    video = _animate(person, size, lambda frame: resize(background(frame), *size), dim=1.0)
    return Animation(video, "The motion", "with the skeleton that was found in it")


def _fit_animation(preflight: Preflight, name: str) -> Animation:
    fit = preflight.fits[name]
    prepared, size = fit.prepared, _shown_size(*preflight.survey.size)
    assert prepared.keypoints is not None
    assert prepared.report.alignment is not None
    picture = resize(prepared.image, *size)
    video = _animate(prepared.keypoints, size, lambda _: picture, dim=_DIM)
    inside = f"{fit.outside:.0%} of the body's points outside" if fit.outside else "all inside"
    notes = "".join(f"; {note}" for note in prepared.report.alignment.notes)
    return Animation(video, f"{_TITLES[name]}: align={name}", f"{inside}{notes}", fit is preflight.chosen)


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


def tempo(keypoints: Keypoints) -> str:
    """Say how many frames of a motion its animation shows, and how fast."""
    step = _shown_frames(keypoints).step
    shown = "Every frame that was looked at is shown." if step == 1 else f"One of {step} frames is shown."
    speed = _MIN_RATE * step / keypoints.fps
    return f"{shown} Played {speed:.1f} times as fast." if speed > 1 else shown


def _overlay(picture: Picture, drawn: Picture, dim: float) -> Picture:
    """Lay a drawn skeleton over a picture; what is drawn bright hides it."""
    brightest = np.maximum(np.maximum(drawn[..., 0], drawn[..., 1]), drawn[..., 2])
    alpha = np.minimum(brightest * np.float32(1 / 90), 1)[..., None]
    return (picture * (np.float32(dim) * (1 - alpha)) + drawn * alpha).astype(np.uint8)


def _backgrounds(preflight: Preflight) -> Callable[[int], Picture]:
    """Pictures of the motion by frame; dark ones where it has none."""
    found, frames = preflight.survey.found, preflight.survey.frames
    if frames:
        return lambda frame: frames[min(frame, len(frames) - 1)]
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


def reference_picture(preflight: Preflight) -> Picture:
    """Draw the skeleton of the person over the cropped reference image; the image alone if nobody is there."""
    size = _shown_size(*preflight.survey.size)
    prepared = next(iter(preflight.fits.values())).prepared
    picture = resize(prepared.image, *size)
    if preflight.survey.in_picture is None or prepared.reference is None:
        return picture
    return _overlay(picture, draw_poses(prepared.reference, *size, style=_STYLE)[0], 0.75)


def crop_picture(preflight: Preflight) -> Picture:
    """Draw the reference image with what the crop leaves out darkened."""
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
