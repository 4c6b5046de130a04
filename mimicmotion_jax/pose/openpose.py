"""OpenPose's people: lists of x, y, score for body, face and hands, in the dialects of its editors and preprocessors.

Our own `.json` files hold the same for all frames (`to_json`).
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.points import to_points
from mimicmotion_jax.pose.recording import Person, coco_people, make_person
from mimicmotion_jax.runtime.errors import InputError

PARTS = {
    "body": ("pose_keypoints_2d", "pose_keypoints", "body_keypoints_2d", "body_keypoints"),
    "left": ("hand_left_keypoints_2d", "hand_left_keypoints", "left_hand_keypoints_2d"),
    "right": ("hand_right_keypoints_2d", "hand_right_keypoints", "right_hand_keypoints_2d"),
    "face": ("face_keypoints_2d", "face_keypoints"),
}
"""Keys of a person's parts: OpenPose's, those of its first version, and those of other programs."""

# Places of our points in lists of other lengths: BODY_25 has a middle hip at 8; feet and pupils come at the end.
_BODY = {18: range(18), 19: range(18), 20: range(18), 24: range(18), 25: [*range(8), *range(9, 19)]}
_FACE = {68: range(68), 70: range(68)}
_HAND = {21: range(21)}


def to_json(keypoints: Keypoints) -> bytes:
    """Write all frames as one of our files."""
    size = np.array([keypoints.width, keypoints.height])

    def flat(points: np.ndarray, scores: np.ndarray) -> list[float]:
        triples = np.concatenate([points * size, scores[:, None]], axis=1) * (scores[:, None] > 0)
        return np.round(triples, 4).ravel().tolist()

    def person(k: Keypoints, f: int, p: int) -> dict[str, list[float]]:
        return {
            "pose_keypoints_2d": flat(k.body[f, p], k.body_score[f, p]),
            "face_keypoints_2d": flat(k.faces[f, p], k.faces_score[f, p]),
            "hand_left_keypoints_2d": flat(k.hands[f, p, 0], k.hands_score[f, p, 0]),
            "hand_right_keypoints_2d": flat(k.hands[f, p, 1], k.hands_score[f, p, 1]),
        }

    frames = [
        {"people": [person(keypoints, f, p) for p in range(keypoints.num_people)]} for f in range(keypoints.num_frames)
    ]
    size_and_rate = {"width": keypoints.width, "height": keypoints.height, "fps": keypoints.fps}
    return json.dumps({"version": 1.0, **size_and_rate, "frames": frames}, separators=(",", ":")).encode()


def read_people(people: Any) -> list[Person]:
    """Read the `people` of a frame: a list, a dictionary of persons, a single person, or null.

    Raises:
        InputError: something else, or lists of other lengths than OpenPose's.
    """
    if people is None:
        return []
    if isinstance(people, Mapping):
        people = [people] if is_person(people) else list(people.values())
    if not isinstance(people, list | tuple) or not all(
        person is None or isinstance(person, Mapping) for person in people
    ):
        raise InputError("'people' should be a list of persons.")
    return [_read_person(person) for person in people if person is not None]


def is_person(content: Mapping[str, Any]) -> bool:
    """Return True if the keys are those of a person."""
    return any(name in content for names in PARTS.values() for name in names)


def read_editor(frame: Mapping[str, Any]) -> list[Person]:
    """Read the `keypoints` that OpenPose editors save: 18 points (x, y) per person, flat, by person or by point."""
    keypoints = frame["keypoints"]
    people = keypoints if _depth(keypoints) > 2 else [keypoints]
    rows = [to_points(person, "'keypoints'") for person in people]
    found = [row for row in rows if row is not None]
    if any(len(row) % 18 for row in found):
        raise InputError("'keypoints' should have 18 points per person.")
    return [make_person(part) for row in found for part in np.split(row, len(row) // 18)]


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list | tuple) else 0


def _read_person(person: Mapping[str, Any]) -> Person:
    parts: dict[str, Any] = {}
    for part, names in PARTS.items():
        name = next((name for name in names if person.get(name) is not None), None)
        parts[part] = None if name is None else _listed(person[name], name)
    body = parts["body"]
    if body is not None and len(body) in (17, 133):
        whole = np.zeros((1, 133, 3))
        whole[0, : len(body)] = body
        return coco_people(whole)[0]
    return make_person(
        _choose(body, _BODY, "a body"),
        _choose(parts["left"], _HAND, "a left hand"),
        _choose(parts["right"], _HAND, "a right hand"),
        _choose(parts["face"], _FACE, "a face"),
    )


def _listed(value: Any, name: str) -> Float[np.ndarray, "points 3"] | None:
    if not isinstance(value, list | tuple | np.ndarray):
        raise InputError(f"'{name}' should be a list of numbers.")
    return to_points(value, f"'{name}'")


def _choose(points: np.ndarray | None, layouts: Mapping[int, Any], what: str) -> np.ndarray | None:
    if points is None:
        return None
    if len(points) not in layouts:
        numbers = ", ".join(map(str, layouts))
        raise InputError(f"a person has {what} of {len(points)} points, where {numbers} are expected (x, y, score).")
    return points[list(layouts[len(points)])]
