"""Keypoints as a file records them, in pixels or as shares of the picture, and their conversion to `Keypoints`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.layout import FACE, HANDS, NUM_POINTS, to_table
from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.frame_rate import assume_rate

FALLBACK_FPS = 30.0
"""Frames per second of a file that does not record them."""

MAX_POSES = 250_000
"""Most frames times people in a file: over two hours of one person."""

MAX_DISTANCE = 10.0
"""Farthest that a point may lie outside the picture, in pictures."""

Person = Float[np.ndarray, "128 3"]  # x, y and score of all points, in the order of `pose.layout`

_UNIT = 2.0  # 90 of 100 coordinates within this are shares of the picture: nobody is two pixels tall
_INSIDE = (-0.1, 1.1)


class SizeMissingError(InputError):
    """The picture's size is needed, and neither the file nor the caller gives it."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """Content of a keypoint file.

    Attributes:
        frames: people of each frame.
        width: of the picture, pixels; None if the file does not say.
        height: likewise.
        fps: frames per second, likewise.
        normalised: coordinates are shares of the picture, not pixels; None if only the numbers can tell.
    """

    frames: Sequence[Sequence[Person]]
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    normalised: bool | None = None


def to_keypoints(
    recording: Recording,
    path: epath.Path,
    width: int | None,
    height: int | None,
    fps: float | None,
    fallback_size: tuple[int, int] | None,
) -> Keypoints:
    """Convert a file's content; see `files.load_keypoints` for the arguments. `path` is its name in messages.

    Raises:
        SizeMissingError: neither the file nor the caller gives the picture's size.
        InputError: coordinates or scores that cannot be.
    """
    fallback = fallback_size or (None, None)
    width, height = width or recording.width or fallback[0], height or recording.height or fallback[1]
    if not width or not height:
        raise SizeMissingError(f"{path} does not give the picture's size; pass the width and height of the video.")
    frames = recording.frames
    people = max((len(frame) for frame in frames), default=0)
    check_count(path, len(frames), people)
    table = np.zeros((len(frames), people, NUM_POINTS, 3), np.float32)
    for row, frame in zip(table, frames, strict=True):
        row[: len(frame)] = np.reshape(frame, (len(frame), NUM_POINTS, 3))
    points, scores = _clean(table)
    normalised = recording.normalised
    if normalised is None and (normalised := _are_shares(points[scores > 0], path)):
        assume(f"{path} has coordinates from 0 to 1: taken as shares of the picture's width and height.")
    if not normalised:
        points = points / np.array([width, height], np.float32)
        _check_size(points[scores > 0], path, width, height)
    try:
        found = Keypoints(
            body=points[..., :HANDS, :],
            body_score=scores[..., :HANDS],
            hands=points[..., HANDS:FACE, :].reshape(len(frames), people, 2, 21, 2),
            hands_score=scores[..., HANDS:FACE].reshape(len(frames), people, 2, 21),
            faces=points[..., FACE:, :],
            faces_score=scores[..., FACE:],
            width=width,
            height=height,
            fps=known_rate(path, len(frames), fps, recording.fps),
        )
        check_distances(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def check_count(path: epath.Path, num_frames: int, num_people: int) -> None:
    """Check that a file holds no more than `MAX_POSES` poses; they are padded to the largest number of people.

    Raises:
        InputError: more.
    """
    if num_frames * num_people > MAX_POSES:
        raise InputError(
            f"{path} has {num_frames:,} frames of up to {num_people:,} people, more than {MAX_POSES:,} poses; split it."
        )


def check_distances(keypoints: Keypoints) -> None:
    """Check that all points are in or near the picture.

    Raises:
        InputError: a point that was seen farther than `MAX_DISTANCE` pictures outside.
    """
    for name in ("body", "hands", "faces"):
        points = getattr(keypoints, name)[getattr(keypoints, f"{name}_score") > 0]
        if points.size and (np.abs(points - 0.5) > 0.5 + MAX_DISTANCE).any():
            x, y = points[np.abs(points - 0.5).max(-1).argmax()] * (keypoints.width, keypoints.height)
            raise InputError(
                f"keypoints '{name}' reach ({x:.6g}, {y:.6g}) in a picture of {keypoints.width}x{keypoints.height} "
                "pixels; check the coordinates and the picture's size."
            )


def known_rate(path: epath.Path, num_frames: int, given: float | None, recorded: float | None) -> float:
    """Frames per second: as given, else as recorded, else 30, which is logged if there is more than one frame."""
    if given is not None:
        return given
    if recorded is not None:
        return recorded
    if num_frames > 1:
        assume_rate(str(path), FALLBACK_FPS)
    return FALLBACK_FPS


def make_person(body: Any = None, left: Any = None, right: Any = None, face: Any = None) -> Person:
    """Join the points of a person, each [points, 3]; None for a part that was not found."""
    person = np.zeros((NUM_POINTS, 3), np.float32)
    starts = {0: body, HANDS: left, HANDS + 21: right, FACE: face}
    for start, part in starts.items():
        if part is not None:
            person[start : start + len(part)] = part
    return person


def coco_people(points: Float[np.ndarray, "people 133 3"]) -> list[Person]:
    """Convert people of COCO-WholeBody (x, y, score), in whatever unit."""
    xy, scores = _clean(points)
    found = Keypoints.from_coco(xy[None], scores[None], 1, 1, 1)
    people = (to_table(found.person(index)) for index in range(found.num_people))
    return [np.concatenate([xy[0], score[0][:, None]], axis=1) for xy, score in people]


def _clean(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split into points and scores; null points are missing, and missing points lie at 0."""
    points, scores = table[..., :2], np.where(np.isnan(table).all(-1), 0, table[..., 2])
    scores = np.maximum(scores, 0)
    return np.where(scores[..., None] == 0, 0, points), scores


def _are_shares(points: Float[np.ndarray, "points 2"], path: epath.Path) -> bool:
    if points.size == 0 or not np.percentile(np.abs(points), 90) <= _UNIT:
        return False
    if np.mean((points < 0).any(-1)) > 0.25:
        raise InputError(
            f"{path} has coordinates from {points.min():.3g} to {points.max():.3g}, neither pixels nor shares of the "
            "picture from 0 to 1; write pixels (OpenPose: --keypoint_scale 0)."
        )
    return True


def _check_size(points: Float[np.ndarray, "points 2"], path: epath.Path, width: int, height: int) -> None:
    outside = ((points < _INSIDE[0]) | (points > _INSIDE[1])).any(-1)
    if outside.size and outside.mean() > 0.5:
        raise InputError(
            f"{path} has most points outside a picture of {width}x{height} pixels, up to "
            f"({points[:, 0].max() * width:.6g}, {points[:, 1].max() * height:.6g}); give the size of the video that "
            "they were found in."
        )
