"""COCO-WholeBody points as MMPose, rtmlib, AlphaPose and COCO's own annotations write them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mimicmotion_jax.pose.layout import FACE, HANDS, NUM_POINTS
from mimicmotion_jax.pose.points import to_numbers, with_scores
from mimicmotion_jax.pose.recording import Person, coco_people
from mimicmotion_jax.runtime.errors import InputError

_SCORES = ("keypoint_scores", "keypoints_scores", "scores", "keypoint_score", "score")
# COCO-WholeBody's annotations: points of each part in a list of its own, and the first of them among the 133.
_PARTS = {"foot_kpts": 17, "face_kpts": 23, "lefthand_kpts": 91, "righthand_kpts": 112}
_EXPECTED = "17, 26, 133, 134 or 136"


def read_instances(instances: Any) -> list[Person]:
    """Read the people of a frame, each with `keypoints` and perhaps scores.

    Raises:
        InputError: something else, or points of another layout.
    """
    if instances is None:
        return []
    if isinstance(instances, Mapping):
        instances = [instances]
    if not isinstance(instances, list | tuple) or not all(isinstance(person, Mapping) for person in instances):
        raise InputError("the people of a frame should be a list of objects with 'keypoints'.")
    return [found for person in instances for found in read_arrays(person)]


def read_arrays(frame: Mapping[str, Any]) -> list[Person]:
    """Read `keypoints` [(people,) points, 2 or 3] or flat, and their scores, as rtmlib returns and MMPose writes them.

    Raises:
        InputError: something else, or points of another layout.
    """
    value = frame.get("keypoints")
    if value is None or len(value) == 0:
        return []
    points = to_numbers(value, "'keypoints'")
    if points.ndim == 1 and points.size % 3 == 0:
        points = points.reshape(-1, 3)
    if points.ndim not in (2, 3) or points.shape[-1] < 2:
        raise InputError("'keypoints' should hold x and y, and perhaps a score, of each point.")
    given = next((frame[name] for name in _SCORES if isinstance(frame.get(name), list | tuple | np.ndarray)), None)
    if given is not None:
        scores = to_numbers(given, "the scores of 'keypoints'").reshape(points.shape[:-1] if points.size else (0,))
        points = np.concatenate([points[..., :2], scores[..., None]], axis=-1)
    points = with_scores(points)
    people = points[None] if points.ndim == 2 else points
    whole = {name: place for name, place in _PARTS.items() if frame.get(name)}
    if whole and people.shape[:2] == (1, 17):
        people = np.concatenate([people, np.zeros((1, 116, 3))], axis=1)
        for name, first in whole.items():
            part = to_numbers(frame[name], f"'{name}'").reshape(-1, 3)
            people[0, first : first + len(part)] = part
    if "num_keypoints" in frame and set(np.unique(people[..., 2])) <= {0, 1, 2}:
        people[..., 2] /= 2  # annotations: 1 is hidden, 2 visible
    return to_people(people)


def to_people(points: np.ndarray) -> list[Person]:
    """Convert the points of people [people, points, 3], whose number tells the layout.

    Raises:
        InputError: another number of points.
    """
    people, count = points.shape[:2]
    if count == NUM_POINTS:
        return list(points)
    if count in (18, 134):  # OpenPose's body; rtmlib has feet, face and hands after it
        ours = np.zeros((people, NUM_POINTS, 3))
        ours[:, :HANDS] = points[:, :18]
        if count == 134:
            ours[:, FACE:], ours[:, HANDS:FACE] = points[:, 24:92], points[:, 92:]
        return list(ours)
    whole = np.zeros((people, 133, 3))
    if count in (26, 136):  # Halpe: head, neck, hip and feet after COCO's 17, then face and hands
        whole[:, :17], whole[:, 23:] = points[:, :17], points[:, 26:] if count == 136 else 0
    elif count in (17, 133):
        whole[:, :count] = points
    else:
        raise InputError(f"a person has {count} keypoints; COCO-WholeBody and its relatives have {_EXPECTED}.")
    return coco_people(whole)


def read_array_frames(array: np.ndarray) -> list[Sequence[Person]]:
    """Read an array of points, [(frames,) (people,) points, 2 or 3]; three axes are frames of one person.

    Raises:
        InputError: another shape.
    """
    if array.dtype.kind not in "fiu" or not 2 <= array.ndim <= 4 or array.shape[-1] not in (2, 3):
        raise InputError(
            f"an array of keypoints should have the shape frames, people, points, 2 or 3, not {array.shape}."
        )
    frames = array.reshape((1,) * (3 - array.ndim) + array.shape) if array.ndim < 4 else array
    frames = with_scores(np.asarray(frames if frames.ndim == 4 else frames[:, None], np.float64))
    return [to_people(frame) for frame in frames]
