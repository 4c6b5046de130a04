"""Choose one person of many, fill gaps in their pose, and report how well a driving video suits."""

import dataclasses
from typing import Literal

import numpy as np

from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import GROUPS, Keypoints
from mimicmotion_jax.runtime.errors import InputError

_SEEN = 0.3  # the score below which the official release does not draw a limb
_MIN_JOINTS = 3  # of 18 body points, for a frame to count as showing a person
_LEGS = [9, 10, 12, 13]  # knees and ankles


def select_person(keypoints: Keypoints, choice: Literal["largest", "central"] | int = "largest") -> Keypoints:
    """Keep one person, the same column in all frames; arguments as of `choose_person`.

    Raises:
        InputError: nobody in any frame, no such person, or a choice that does not exist.
    """
    return keypoints.person(choose_person(keypoints, choice))


def choose_person(keypoints: Keypoints, choice: Literal["largest", "central"] | int = "largest") -> int:
    """Return the column of the person to follow.

    Args:
        keypoints: P people.
        choice: "largest" and "central" add up, over the frames, the area of the body's bounding box or its centre's
            nearness to the middle of the picture (1 there, 0 in a corner), times the mean confidence of the body. So
            somebody who is in view for longer counts for more. An integer is a column.

    Raises:
        InputError: nobody in any frame, or a choice that does not exist.
    """
    present = _present(keypoints.body_score)  # [F, P]
    if not is_anybody_in(keypoints):
        raise InputError(
            f"nobody was found in any of the {keypoints.num_frames} frames; use a clearer view of the person or "
            "another detector."
        )
    if isinstance(choice, int):
        return choice
    seen = keypoints.body_score > _SEEN
    size = np.array([keypoints.width, keypoints.height])
    pixels = keypoints.body * size
    low = np.where(seen[..., None], pixels, np.inf).min(-2)  # [F, P, 2]
    high = np.where(seen[..., None], pixels, -np.inf).max(-2)
    low, high = np.where(present[..., None], low, 0), np.where(present[..., None], high, 0)
    if choice == "largest":
        merit = (high - low).prod(-1)
    elif choice == "central":
        merit = 1 - np.linalg.norm((low + high) / 2 - size / 2, axis=-1) / np.linalg.norm(size / 2)
    else:
        raise InputError(f"there is no way '{choice}' to choose a person; give largest, central or a number.")
    confidence = np.minimum(keypoints.body_score, 1).mean(-1) * present
    return int((merit * confidence).sum(0).argmax())


def list_people(keypoints: Keypoints) -> list[int]:
    """List the columns that show a person in some frame, from left to right by their mean place."""
    present = _present(keypoints.body_score)
    weights = (keypoints.body_score > _SEEN) * present[..., None]
    place = (keypoints.body[..., 0] * weights).sum((0, 2)) / weights.sum((0, 2)).clip(1)
    return sorted(np.flatnonzero(present.any(0)).tolist(), key=lambda column: place[column])


def is_anybody_in(keypoints: Keypoints) -> bool:
    """Return True if any frame shows a person: at least 3 points of a body with a score above 0.3."""
    return bool(_present(keypoints.body_score).any())


def fill_gaps(
    keypoints: Keypoints, mode: Literal["interpolate", "dark"] = "interpolate", max_gap_seconds: float = 0.5
) -> Keypoints:
    """Bridge the frames in which a point was lost (score at most 0.3) between two frames in which it was seen.

    "interpolate" moves the point along the straight line between the two, with the score on the line between theirs,
    lowered towards the middle of the gap, to half of it there: times max(t, 1 - t) for t in (0, 1). Points lost for
    longer than `max_gap_seconds`, before the first or after the last time they were seen, stay as they are; "dark"
    leaves all as they are.

    Raises:
        InputError: an unknown mode, or a length that is negative or not a number.
    """
    if mode not in ("interpolate", "dark"):
        raise InputError(f"there is no way '{mode}' to fill gaps; choose interpolate or dark.")
    if not max_gap_seconds >= 0:
        raise InputError(f"max_gap_seconds must be 0 or more, not {max_gap_seconds}.")
    if mode == "dark":
        return keypoints
    filled = {}
    for name in GROUPS:
        key = f"{name}_score"
        filled[name], filled[key] = _interpolate(
            getattr(keypoints, name), getattr(keypoints, key), max_gap_seconds * keypoints.fps
        )
    return dataclasses.replace(keypoints, **filled)


@dataclasses.dataclass(frozen=True)
class PoseReport:
    """Suitability of a driving video. Fractions are of all frames; confidences are means, 1 at most, over the frames
    that show a person. With several people, all but `crowded_frames` is about the one who is followed."""

    num_frames: int
    fps: float
    person_fraction: float
    crowded_frames: int  # frames that show more than one person
    longest_gap: int  # frames in a row without a person
    longest_gap_start: int  # its first frame; 0 without a gap
    body_confidence: float
    hands_confidence: float
    faces_confidence: float
    left_hand_fraction: float  # frames in which most of the hand's points were seen
    right_hand_fraction: float
    legs_fraction: float  # frames with both knees and ankles
    jumps: tuple[int, ...] = ()  # frames in which the skeleton is where nobody can have moved to, see `find_jumps`

    def problems(self) -> list[str]:
        """List likely causes of a poor result, most serious first; empty for a good driving video."""
        if self.person_fraction == 0:
            return ["nobody was found: use a clearer view of the person or another detector"]
        found = []
        if self.longest_gap > self.fps:
            found.append("the person is away for over a second: cut that part out")
        elif self.person_fraction < 0.9:
            found.append("the person is often lost: use a steadier, better lit or larger view")
        if self.body_confidence < 0.6:
            found.append("the body is seen poorly: many joints are hidden or out of the picture")
        if self.jumps:
            first, *others = self.jumps
            more = f" and {len(others)} more times" if others else ""
            found.append(
                f"the skeleton jumps at {first / self.fps:.2f} s{more}, farther than a person can: a cut, or somebody "
                "else; take one scene"
            )
        if self.crowded_frames:
            found.append("there are several people: check that the right one is chosen")
        hands = {"left": self.left_hand_fraction, "right": self.right_hand_fraction}
        for side, fraction in hands.items():
            if fraction < 0.5:
                found.append(f"the {side} hand is mostly unseen: expect an invented one")
        if self.faces_confidence < 0.3:
            found.append("the face is mostly unseen: expect an invented one")
        return found

    def summary(self) -> str:
        """Describe the motion in one paragraph, to read before an hour of GPU time is spent on it."""
        gap = "no gaps"
        if self.longest_gap:
            start, length = self.longest_gap_start / self.fps, self.longest_gap / self.fps
            gap = f"the longest gap {length:.1f} s from {start:.1f} s on"
        problems = self.problems()
        return (
            f"{self.num_frames} frames ({self.num_frames / self.fps:.1f} s): a person in {self.person_fraction:.0%}, "
            f"{gap}; frames with several people: {self.crowded_frames}. Mean confidence: body "
            f"{self.body_confidence:.2f}, hands {self.hands_confidence:.2f}, face {self.faces_confidence:.2f}. "
            f"Left hand seen in {self.left_hand_fraction:.0%}, right hand in {self.right_hand_fraction:.0%}, legs in "
            f"{self.legs_fraction:.0%} of the frames. "
            + (f"Look out: {'; '.join(problems)}." if problems else "Good to go.")
        )


def diagnose(keypoints: Keypoints, choice: Literal["largest", "central"] | int = "largest") -> PoseReport:
    """Inspect a driving video's keypoints before they are used; see `PoseReport`.

    Args:
        keypoints: P people.
        choice: person to follow, as in `select_person`.

    Raises:
        InputError: no frames, or no such person.
    """
    if keypoints.num_frames == 0:
        raise InputError("these keypoints hold no frames; check the range that was read.")
    crowd = _present(keypoints.body_score)  # [F, P]
    if crowd.any():
        one = select_person(keypoints, choice)
        jumps = find_jumps(one)
        body, hands, faces = one.body_score[:, 0], one.hands_score[:, 0], one.faces_score[:, 0]
    else:
        jumps = []
        body, hands, faces = (np.zeros((keypoints.num_frames, *points)) for points in GROUPS.values())
    present = _present(body)
    left_seen, right_seen = ((hands > _SEEN).mean(-1) > 0.5).T

    def confidence(scores: np.ndarray) -> float:
        return float(np.minimum(scores[present], 1).mean()) if present.any() else 0.0

    def fraction(seen: np.ndarray | np.bool) -> float:
        return float((seen & present).mean())

    start, length = _longest_run(~present)
    return PoseReport(
        num_frames=keypoints.num_frames,
        fps=keypoints.fps,
        person_fraction=float(present.mean()),
        crowded_frames=int((crowd.sum(1) > 1).sum()),
        longest_gap=length,
        longest_gap_start=start,
        body_confidence=confidence(body),
        hands_confidence=confidence(hands),
        faces_confidence=confidence(faces),
        left_hand_fraction=fraction(left_seen),
        right_hand_fraction=fraction(right_seen),
        legs_fraction=fraction((body[:, _LEGS] > _SEEN).all(-1)),
        jumps=tuple(jumps),
    )


def _present(body_score: np.ndarray) -> np.ndarray:
    """Return True where enough of a body [..., 18] is seen to call it a person."""
    return (body_score > _SEEN).sum(-1) >= _MIN_JOINTS


def _interpolate(points: np.ndarray, scores: np.ndarray, max_frames: float) -> tuple[np.ndarray, np.ndarray]:
    """Bridge gaps of at most `max_frames` frames in `points` [F, ..., 2] with `scores` [F, ...]."""
    num_frames = len(scores)
    seen = scores > _SEEN
    frame = np.arange(num_frames).reshape(-1, *[1] * (scores.ndim - 1))
    before = np.maximum.accumulate(np.where(seen, frame, -1), axis=0)  # [F, ...], the last frame it was seen in
    after = np.minimum.accumulate(np.where(seen, frame, num_frames)[::-1], axis=0)[::-1]
    fill = ~seen & (before >= 0) & (after < num_frames) & (after - before - 1 <= max_frames)
    before, after = np.where(fill, before, frame), np.where(fill, after, frame)
    t = (frame - before) / np.maximum(after - before, 1)

    def between(values: np.ndarray, t: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return (1 - t) * np.take_along_axis(values, before, 0) + t * np.take_along_axis(values, after, 0)

    line = between(points, t[..., None], before[..., None], after[..., None])
    confidence = between(scores, t, before, after) * np.maximum(t, 1 - t)
    return np.where(fill[..., None], line, points), np.where(fill, confidence, scores)


def _longest_run(mask: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest run of True in `mask` [F]; (0, 0) without one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if not len(starts):
        return 0, 0
    longest = lengths.argmax()
    return int(starts[longest]), int(lengths[longest])
