"""Findings of a preflight: parts of the body over time, people, and how the motion fits the picture."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.pose.select import list_people

SEEN = 0.3
"""Score below which a point is not drawn."""

_LEAST_LOSS = 0.2  # seconds for which a hand must be unseen to count as lost


@dataclasses.dataclass(frozen=True)
class Part:
    """Confidence in a part of the body over time.

    Attributes:
        confidence: mean of its points' scores in each frame, 1 at most.
        seen: fraction of the frames in which most of its points are seen.
        lost: stretches (first and last second) in which they are not.
    """

    confidence: Float[np.ndarray, " frames"]
    seen: float
    lost: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Person:
    """One of the people in a picture.

    Attributes:
        number: value of the option that takes this person.
        box: left, top, right and bottom of the seen points, as fractions of the picture; None if not in this frame.
        seen: fraction of the frames that show this person.
    """

    number: int
    box: tuple[float, float, float, float] | None
    seen: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """The motion under one alignment.

    Attributes:
        prepared: inputs of the video, of the frames that were looked at.
        outside: fraction of the seen points of the body that lie outside the picture.
        outside_joint: the joint that does so most often, such as "left ankle"; empty if none does.
    """

    prepared: Prepared
    outside: float
    outside_joint: str


def find_parts(person: Keypoints) -> dict[str, Part]:
    """Confidence over time in the body, legs, face and hands of one person."""
    body, hands, face = person.body_score[:, 0], person.hands_score[:, 0], person.faces_score[:, 0]
    legs = body[:, [Body.R_KNEE, Body.R_ANKLE, Body.L_KNEE, Body.L_ANKLE]]
    scores = {"body": body, "legs": legs, "face": face, "left hand": hands[:, 0], "right hand": hands[:, 1]}
    return {name: _part(points, person.fps) for name, points in scores.items()}


def _part(scores: Float[np.ndarray, "frames points"], fps: float) -> Part:
    seen = (scores > SEEN).mean(-1) > 0.5
    runs = [(first / fps, last / fps) for first, last in _runs(~seen) if (last - first) / fps >= _LEAST_LOSS]
    return Part(np.minimum(scores, 1).mean(-1), float(seen.mean()), tuple(runs))


def _runs(mask: Bool[np.ndarray, " frames"]) -> list[tuple[int, int]]:
    """First frame of each run of True, and the frame after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def judge_fit(prepared: Prepared) -> Fit:
    """Count the body's points that leave the picture."""
    assert prepared.keypoints is not None
    points, seen = prepared.keypoints.body[:, 0], prepared.keypoints.body_score[:, 0] > SEEN
    outside = seen & ((points < 0) | (points > 1)).any(-1)
    by_joint = outside.sum(0)
    joint = Body(int(by_joint.argmax())).name.lower() if by_joint.any() else ""
    name = joint.replace("r_", "right ").replace("l_", "left ")
    return Fit(prepared, float(outside.sum() / max(seen.sum(), 1)), name)


def find_people(found: Keypoints, frame: int) -> tuple[Person, ...]:
    """List everybody in the motion from left to right, with their boxes in one frame of it."""
    people = []
    for number in list_people(found):
        seen = found.body_score[:, number] > SEEN  # [F, 18]
        points = found.body[frame, number][seen[frame]]
        box = None
        if len(points):
            left, top, right, bottom = (*points.min(0).tolist(), *points.max(0).tolist())
            box = (left, top, right, bottom)
        people.append(Person(number, box, float((seen.sum(-1) >= 3).mean())))
    return tuple(people)
