"""DWPose's dictionaries, one per frame: `bodies` with `candidate` and `subset`, `hands`, `faces`, and scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mimicmotion_jax.pose.points import to_numbers, with_scores
from mimicmotion_jax.pose.recording import Person, make_person
from mimicmotion_jax.runtime.errors import InputError


def read_dwpose(frame: Mapping[str, Any]) -> list[Person]:
    """Read the people of a frame.

    `subset` holds indices into `candidate`, -1 for points that were not found, or confidences. `hands` has the left
    hands of all people, then their right hands. Points without scores are missing where both coordinates are -1 or 0.

    Raises:
        InputError: arrays that do not fit together.
    """
    bodies = frame["bodies"]
    body = _read_bodies(bodies) if isinstance(bodies, Mapping) else _points(bodies, None, 18, "bodies")
    people = len(body)
    hands = _points(frame.get("hands"), frame.get("hands_score"), 21, "hands")
    faces = _points(frame.get("faces"), frame.get("faces_score"), 68, "faces")
    if len(hands) not in (0, 2 * people) or len(faces) not in (0, people):
        raise InputError(f"{people} bodies do not go with {len(hands)} hands and {len(faces)} faces.")
    left, right = (hands[:people], hands[people:]) if len(hands) else ([None] * people,) * 2
    return [
        make_person(*parts) for parts in zip(body, left, right, faces if len(faces) else [None] * people, strict=True)
    ]


def _read_bodies(bodies: Mapping[str, Any]) -> np.ndarray:
    subset = to_numbers(bodies.get("subset", []), "'subset'")
    subset = subset.reshape(-1, subset.shape[-1])[:, :18] if subset.size else np.zeros((0, 18))
    scores = next((bodies[name] for name in ("score", "scores", "body_score") if bodies.get(name) is not None), None)
    candidate = to_numbers(bodies.get("candidate", []), "'candidate'")
    candidate = candidate.reshape(-1, candidate.shape[-1]) if candidate.size else np.zeros((0, 2))
    if subset.shape[1] != 18 or candidate.shape[1] < 2:
        raise InputError("'candidate' should have x and y, and 'subset' 18 points per person.")
    used = subset[subset >= 0]
    indices = (subset == np.round(subset)).all() and len(np.unique(used)) == len(used)
    given = None if scores is None else to_numbers(scores, "'score'").reshape(-1, 18)
    if given is None:
        given = (subset >= 0).astype(float) if indices else subset
    if given.shape != subset.shape or (indices and used.size and used.max() >= len(candidate)):
        raise InputError("'candidate', 'subset' and 'score' do not belong together.")
    if len(candidate) == 18 * len(subset):
        places = np.arange(len(candidate)).reshape(-1, 18)
    elif indices:  # OpenPose's own: the points of all people in any order
        places = np.maximum(subset, 0).astype(int)
    else:
        raise InputError("'candidate' should have 18 points per person of 'subset'.")
    if not len(subset):
        return np.zeros((0, 18, 3))
    xy = candidate[places][..., :2]
    return np.concatenate([xy, np.where((xy == -1).all(-1), 0, given)[..., None]], axis=-1)


def _points(value: Any, scores: Any, count: int, what: str) -> np.ndarray:
    """Points of a part of all people, [parts, count, 3]."""
    if isinstance(value, Mapping):
        value = value.get("candidate")
    array = to_numbers([] if value is None else value, f"'{what}'")
    if array.size == 0:
        return np.zeros((0, count, 3))
    if array.ndim < 2 or array.size % (count * array.shape[-1]) or not 2 <= array.shape[-1] <= 3:
        raise InputError(f"'{what}' should have {count} points each.")
    points = with_scores(array.reshape(-1, count, array.shape[-1]))
    if scores is not None:
        points[..., 2] = to_numbers(scores, f"'{what}_score'").reshape(points.shape[:2])
        points[..., 2][(points[..., :2] == -1).all(-1)] = 0
    return points
