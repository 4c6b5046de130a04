"""MediaPipe's landmarks: their places among COCO-WholeBody's points, and files of them in JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mimicmotion_jax.pose.points import to_points
from mimicmotion_jax.pose.recording import Person, coco_people
from mimicmotion_jax.runtime.errors import InputError

MEDIAPIPE_BODY = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
"""MediaPipe's index of each COCO body point."""

# The vertex of MediaPipe's face mesh nearest to each of iBUG's 68 points. Chosen by drawing, and by the distance to the
# mean of 565 frontal DWPose faces after fitting one linear map: 0.06 of the distance between the eyes on average.
MEDIAPIPE_FACE = [
    *(127, 93, 132, 58, 172, 136, 149, 148, 152),  # jaw, from the person's right ear to the chin
    *(377, 378, 365, 397, 288, 361, 323, 356),  # and on to the left ear
    *(46, 53, 52, 65, 55, 285, 295, 282, 283, 276),  # brows
    *(168, 197, 195, 4, 98, 97, 2, 326, 327),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91),  # outer lips
    *(78, 81, 13, 311, 308, 402, 14, 178),  # inner lips
]

_PARTS = {
    "pose": ("pose_landmarks", "poseLandmarks", "pose", "landmarks"),
    "left": ("left_hand_landmarks", "leftHandLandmarks", "left_hand", "leftHand"),
    "right": ("right_hand_landmarks", "rightHandLandmarks", "right_hand", "rightHand"),
    "face": ("face_landmarks", "faceLandmarks", "face"),
}
_COUNTS = {"pose": (33,), "left": (21,), "right": (21,), "face": (468, 478)}
_MAX_SHARE = 2.0  # larger coordinates are not shares of the picture
_OUTSIDE_FADE = 0.05  # of the picture, as `mediapipe_holistic` fades what it can only guess there


def has_landmarks(frame: Mapping[str, Any]) -> bool:
    """Return True if the keys are those of MediaPipe's results."""
    return any(name in frame for names in _PARTS.values() for name in names)


def read_landmarks(frame: Mapping[str, Any]) -> list[Person]:
    """Read the people of a frame, in shares of the picture.

    A body point's score is its visibility, that of a hand or face 1; both fall to 0 outside the picture.

    Raises:
        InputError: other numbers of landmarks than MediaPipe's, or landmarks in pixels.
    """
    parts = {part: _read_part(frame, part) for part in _PARTS}
    people = np.zeros((max(map(len, parts.values())), 133, 3))
    for person, points in zip(people, parts["pose"], strict=False):
        person[:17] = points[MEDIAPIPE_BODY]
    for part, place in (("left", slice(91, 112)), ("right", slice(112, 133)), ("face", slice(23, 91))):
        for person, points in zip(people, parts[part], strict=False):
            person[place] = points[MEDIAPIPE_FACE] if part == "face" else points
            person[place, 2] = 1
    seen = np.abs(people[..., :2][people[..., 2] > 0])
    if seen.size and np.percentile(seen, 90) > _MAX_SHARE:
        raise InputError("its landmarks are in pixels; give MediaPipe's own coordinates, which go from 0 to 1.")
    outside = np.maximum(np.abs(people[..., :2] - 0.5).max(-1) - 0.5, 0)
    people[..., 2] *= np.maximum(1 - outside / _OUTSIDE_FADE, 0)
    return coco_people(people)


def _read_part(frame: Mapping[str, Any], part: str) -> list[np.ndarray]:
    """Landmarks of a part, [points, 3], of each person."""
    found = next((frame[name] for name in _PARTS[part] if frame.get(name) is not None), [])
    if isinstance(found, Mapping):  # a protocol buffer's message as JSON
        found = found.get("landmark", found.get("landmarks", list(found.values())))
    if not isinstance(found, list | tuple | np.ndarray):
        raise InputError(f"the {part} should be a list of landmarks.")
    if len(found) == 0:
        return []
    first = next((item for item in found if item is not None), None)
    single = isinstance(first, Mapping) and "landmark" not in first
    single = single or (isinstance(first, list | tuple | np.ndarray) and len(first) > 0 and np.isscalar(first[0]))
    people = [_to_landmarks(person, part) for person in ([found] if single else found) if person is not None]
    for points in people:
        if len(points) not in _COUNTS[part]:
            raise InputError(f"the {part} has {len(points)} landmarks; MediaPipe's has {_COUNTS[part][0]}.")
    return people


def _to_landmarks(person: Any, part: str) -> np.ndarray:
    """Landmarks with their visibility, the fourth number of a list."""
    if isinstance(person, Mapping):
        person = person.get("landmark", [])
    if len(person) and isinstance(person[0], list | tuple | np.ndarray):
        person = [[*row[:2], row[3] if len(row) > 3 else 1] for row in person]
    points = to_points(person, f"the {part}")
    return np.zeros((0, 3)) if points is None else points
