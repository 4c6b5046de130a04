"""Following of people over a video: each frame's people are assigned to where everybody is expected to be by then."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped

from mimicmotion_jax.pose.keypoints import ARRAYS, GROUPS, Keypoints

VERSION = 2
"""Version of `assign_columns`; raise it when it gives other columns, so that stored poses are made again."""

_SEEN = 0.3
# A face counts as about 20 joints and a hand as 5; body and feet, face, hands, as in COCO-WholeBody.
_COCO_WEIGHTS = np.repeat([1.0, 0.3, 0.25], [23, 68, 42])
_WEIGHTS = {"body": 1.0, "hands": 0.25, "faces": 0.3}
_INERTIA = 0.3  # share of the earlier velocity in the new one
_FRICTION = 0.9  # share of the velocity that somebody who is hidden keeps per frame
_LEAP = 1.0  # distance beyond which a move is no motion but a cut, or somebody else


@dataclasses.dataclass
class _Track:
    """Last sight of the person in a column."""

    points: Float[np.ndarray, "points 2"]
    seen: Bool[np.ndarray, " points"]
    velocity: Float[np.ndarray, "2"] = dataclasses.field(default_factory=lambda: np.zeros(2))  # pixels per frame
    age: int = 1  # frames since

    def expected(self) -> Float[np.ndarray, "points 2"]:
        return self.points + self.velocity * (1 - _FRICTION**self.age) / (1 - _FRICTION)

    def update(self, points: np.ndarray, seen: np.ndarray, leapt: bool) -> None:
        step = np.median((points - self.points)[_common(seen, self.seen)], axis=0) / self.age
        velocity = _INERTIA * self.velocity + (1 - _INERTIA) * step if self.velocity.any() else step
        self.points, self.seen, self.velocity, self.age = points, seen, velocity * (not leapt), 1


@jaxtyped(typechecker=beartype)
def assign_columns(
    people: Sequence[tuple[Float[np.ndarray, "_ 133 2"], Float[np.ndarray, "_ 133"]]],
) -> list[list[int]]:
    """Give each person of each frame a column (0, 1, …), such that a column follows one person.

    Everybody is expected to move on as before, slower and slower while hidden. Of all ways to assign a frame's people
    to the columns, the one is taken that adds up to the least distance, point by point, between found and expected
    skeletons, so that dancers who cross keep their columns even where their bounding boxes coincide. A column is added
    only when a frame holds more people than there are columns, so that a cut to another view of a lone dancer stays in
    one column.
    """
    return _assign(people, _COCO_WEIGHTS)


def follow_people(keypoints: Keypoints) -> Keypoints:
    """Put the people of each frame, listed in any order, into columns as `assign_columns` does."""
    shape = (keypoints.num_frames, keypoints.num_people, -1)
    size = (keypoints.width, keypoints.height)
    points = np.concatenate([getattr(keypoints, name).reshape(*shape, 2) * size for name in GROUPS], axis=2)
    scores = np.concatenate([getattr(keypoints, f"{name}_score").reshape(shape) for name in GROUPS], axis=2)
    weights = np.repeat([_WEIGHTS[name] for name in GROUPS], [np.prod(GROUPS[name]) for name in GROUPS])
    listed = [np.flatnonzero(frame.any(-1)) for frame in scores]
    people = [(points[frame, found], scores[frame, found]) for frame, found in enumerate(listed)]
    columns = _assign(people, weights)
    arrays = {name: np.zeros_like(getattr(keypoints, name)) for name in ARRAYS}
    for name, array in arrays.items():
        for frame, found in enumerate(listed):
            array[frame, columns[frame]] = getattr(keypoints, name)[frame, found]
    return dataclasses.replace(keypoints, **arrays)


def _assign(people: Sequence[tuple[np.ndarray, np.ndarray]], weights: Float[np.ndarray, " points"]) -> list[list[int]]:
    from scipy.optimize import linear_sum_assignment  # takes half a second to import

    tracks: list[_Track] = []
    columns = []
    for points, scores in people:
        seen = scores > _SEEN
        seen |= ~seen.any(-1, keepdims=True)
        distance = _distance(points, seen, tracks, weights)
        # Far is far: without the bend, one long way would weigh as much as mistaking everybody else for a neighbour.
        matched = dict(zip(*linear_sum_assignment(distance / (1 + distance)), strict=True))
        for column in set(range(len(tracks))) - set(matched.values()):
            tracks[column].age += 1
        for person, column in matched.items():
            tracks[column].update(points[person], seen[person], leapt=distance[person, column] > _LEAP)
        for person in sorted(set(range(len(points))) - set(matched)):
            matched[person] = len(tracks)
            tracks.append(_Track(points[person], seen[person]))
        columns.append([int(matched[person]) for person in range(len(points))])
    return columns


def _distance(points: np.ndarray, seen: np.ndarray, tracks: Sequence[_Track], weights: np.ndarray) -> np.ndarray:
    """Distance [people, tracks] to where each track is expected, in sizes of the person, and the logarithm of the ratio
    of their sizes; over the points that both show."""
    if not tracks or not len(points):
        return np.zeros((len(points), len(tracks)))
    expected = np.stack([track.expected() for track in tracks])
    common = _common(seen[:, None], np.stack([track.seen for track in tracks]))  # [people, tracks, points]
    size, expected_size = _size(points[:, None], common), _size(expected[None], common)
    weights = common * weights
    offsets = np.linalg.norm(points[:, None] - expected, axis=-1)
    return (offsets * weights).sum(-1) / weights.sum(-1) / size + np.abs(np.log(size / expected_size))


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Points that both show; all points where there are none."""
    common = a & b
    return common | ~common.any(-1, keepdims=True)


def _size(points: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Longer side of the bounding box of the chosen points, at least one pixel."""
    chosen = chosen[..., None]
    span = np.where(chosen, points, -np.inf).max(-2) - np.where(chosen, points, np.inf).min(-2)
    return span.max(-1).clip(1)
