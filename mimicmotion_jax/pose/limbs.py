"""Limb-length mapping (paper appendix D, after MuseV): a motion on a body with the reference's proportions.

All lengths are in picture heights with x multiplied by the aspect ratio, so that a limb is as long lying as standing.
A ratio (reference / driver) per kind of limb scales each bone about its parent, from the neck outwards, and keeps its
direction. What makes it robust where a single calibration frame is not:

- a driver's limb is as long as the 90th percentile over all frames, weighted by the confidence of both ends, since
  foreshortening and occlusion only ever make it shorter; left and right count as one limb;
- no ratio differs from the median ratio by more than a factor of `MAX_STRETCH`;
- a limb that one of the two never shows takes the torso's ratio, or the median one where that is unknown as well.

The neck's own travel is scaled by the ratio of standing height, so that feet on the ground stay there and a step
remains a step; one constant shift then brings the neck onto the reference's.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped

from mimicmotion_jax.pose.keypoints import Body
from mimicmotion_jax.pose.layout import FACE, NUM_POINTS, WRISTS

PERCENTILE = 0.9
MAX_STRETCH = 2.5
SEEN = 0.3  # the score above which a point is good enough to measure by; also the official drawing threshold

_NOSE_TIP = FACE + 30

_Pair = tuple[int, int]

# By kind of limb, the distances it is measured by; each on the left and the right, or once.
MEASURES: Mapping[str, Sequence[Sequence[_Pair]]] = {
    "neck": [[(Body.NECK, Body.NOSE)]],
    "face": [[(Body.L_EAR, Body.R_EAR)], [(FACE, FACE + 16)]],  # ear to ear, and the jaw's two ends
    "shoulders": [[(Body.NECK, Body.L_SHOULDER), (Body.NECK, Body.R_SHOULDER)]],
    "upper arm": [[(Body.L_SHOULDER, Body.L_ELBOW), (Body.R_SHOULDER, Body.R_ELBOW)]],
    "lower arm": [[(Body.L_ELBOW, Body.L_WRIST), (Body.R_ELBOW, Body.R_WRIST)]],
    # From the wrist to where each finger begins: fingers bend, the palm does not.
    "hand": [[(hand, hand + knuckle) for hand in WRISTS.values()] for knuckle in (5, 9, 13, 17)],
    "torso": [[(Body.NECK, Body.L_HIP), (Body.NECK, Body.R_HIP)]],
    "upper leg": [[(Body.L_HIP, Body.L_KNEE), (Body.R_HIP, Body.R_KNEE)]],
    "lower leg": [[(Body.L_KNEE, Body.L_ANKLE), (Body.R_KNEE, Body.R_ANKLE)]],
}

# Child: (parent, kind of limb), parents first.
_TREE: Mapping[int, tuple[int, str]] = {
    Body.NOSE: (Body.NECK, "neck"),
    **{child: (Body.NOSE, "face") for child in (Body.R_EYE, Body.L_EYE, Body.R_EAR, Body.L_EAR)},
    **{FACE + i: (Body.NOSE, "face") for i in range(NUM_POINTS - FACE)},
    **{child: (Body.NECK, "shoulders") for child in (Body.R_SHOULDER, Body.L_SHOULDER)},
    **{child: (child - 1, "upper arm") for child in (Body.R_ELBOW, Body.L_ELBOW)},
    **{child: (child - 1, "lower arm") for child in (Body.R_WRIST, Body.L_WRIST)},
    **{hand + i: (wrist, "hand") for wrist, hand in WRISTS.items() for i in range(21)},
    **{child: (Body.NECK, "torso") for child in (Body.R_HIP, Body.L_HIP)},
    **{child: (child - 1, "upper leg") for child in (Body.R_KNEE, Body.L_KNEE)},
    **{child: (child - 1, "lower leg") for child in (Body.R_ANKLE, Body.L_ANKLE)},
}


class MappedLimbs(NamedTuple):
    """Moved points, and how they were moved."""

    points: Float[np.ndarray, "frames 128 2"]
    ratios: dict[str, float]
    shift: tuple[float, float]
    notes: tuple[str, ...]


@jaxtyped(typechecker=beartype)
def map_limbs(
    driving: Float[np.ndarray, "frames 128 2"],
    driving_scores: Float[np.ndarray, "frames 128"],
    reference: Float[np.ndarray, "128 2"],
    reference_scores: Float[np.ndarray, " 128"],
) -> MappedLimbs:
    """Give the driver's limbs the reference's lengths and put the figure where the reference stands.

    Points are in heights of their own picture, isotropic; a score of 0 means a missing point, whose position means
    nothing before and after. Both must show at least one point with a score above 0.3.
    """
    driving, driving_scores = _join_parts(driving, driving_scores)
    reference, reference_scores = (part[0] for part in _join_parts(reference[None], reference_scores[None]))
    driven = _lengths(driving, driving_scores)
    ratios, notes = _ratios(_lengths(reference[None], reference_scores[None]), driven)
    moved = _propagate(driving, driving_scores, ratios, _travel(ratios, driven))

    # The neck if both show it, else the point that both show best.
    common = reference_scores[:18] * (reference_scores[:18] > SEEN)
    common = common * np.where(driving_scores[:, :18] > SEEN, driving_scores[:, :18], 0).sum(0)
    anchor = Body.NECK if common[Body.NECK] > 0 else Body(int(common.argmax()))
    if common[anchor] == 0:
        notes.append("the two have no body point in common, so the middles of what they show were brought together")
        target = _middle(reference[None], reference_scores[None])
        shift = target - _middle(moved, driving_scores)
    else:
        if anchor != Body.NECK:
            notes.append(f"no neck in common, so the place of the {_name(anchor)} was matched")
        weights = np.where(driving_scores[:, anchor] > SEEN, driving_scores[:, anchor], 0)
        shift = reference[anchor] - [_quantile(moved[:, anchor, axis], weights, 0.5) for axis in (0, 1)]
    return MappedLimbs(moved + shift, ratios, (float(shift[0]), float(shift[1])), tuple(notes))


def _join_parts(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Use the hand's wrist and the face's tip of the nose where the body lacks them."""
    points, scores = points.copy(), scores.copy()
    for joint, spare in (*WRISTS.items(), (Body.NOSE, _NOSE_TIP)):
        lacking = scores[:, joint] == 0
        points[lacking, joint], scores[lacking, joint] = points[lacking, spare], scores[lacking, spare]
    return points, scores


def _lengths(points: np.ndarray, scores: np.ndarray) -> dict[str, list[float | None]]:
    """By kind of limb, the length of each of its measures, None if it is never seen."""

    def length(a: int, b: int) -> float | None:
        weights = np.where((scores[:, a] > SEEN) & (scores[:, b] > SEEN), scores[:, a] * scores[:, b], 0)
        return _quantile(np.linalg.norm(points[:, a] - points[:, b], axis=-1), weights, PERCENTILE)

    def mean(sides: Sequence[_Pair]) -> float | None:
        known = [side for side in (length(a, b) for a, b in sides) if side]
        return sum(known) / len(known) if known else None

    return {limb: [mean(sides) for sides in measures] for limb, measures in MEASURES.items()}


def _ratios(
    reference: dict[str, list[float | None]], driving: dict[str, list[float | None]]
) -> tuple[dict[str, float], list[str]]:
    """The ratio for each kind of limb, and notes on those that were not simply measured."""
    measured: dict[str, float] = {}
    for limb in MEASURES:
        both = [(r, d) for r, d in zip(reference[limb], driving[limb], strict=True) if r and d]
        if both:
            measured[limb] = sum(r for r, _ in both) / sum(d for _, d in both)
    middle = float(np.median(list(measured.values()))) if measured else 1.0
    limited = {limb: min(max(ratio, middle / MAX_STRETCH), middle * MAX_STRETCH) for limb, ratio in measured.items()}
    fallback = limited.get("torso", middle)
    notes = [
        f"{limb} limited from {measured[limb]:.2f} to {ratio:.2f}"
        for limb, ratio in limited.items()
        if ratio != measured[limb]
    ]
    unseen = [limb for limb in MEASURES if limb not in measured]
    if not measured:
        notes.append("no limb is seen in both, so sizes stay as they are")
    elif unseen:
        source = "the torso's" if "torso" in measured else "the median"
        notes.append(f"not seen in both and given {source} ratio: {', '.join(unseen)}")
    return {limb: limited.get(limb, fallback) for limb in MEASURES}, notes


def _travel(ratios: dict[str, float], driving: dict[str, list[float | None]]) -> float:
    """The ratio of the heights from ankle to neck, by which the neck's path is scaled."""
    lengths = {limb: driving[limb][0] or 0.0 for limb in ("torso", "upper leg", "lower leg")}
    total = sum(lengths.values())
    return sum(ratios[limb] * length for limb, length in lengths.items()) / total if total else ratios["torso"]


def _propagate(points: np.ndarray, scores: np.ndarray, ratios: dict[str, float], travel: float) -> np.ndarray:
    """Scale every bone about its parent; children of a missing joint hang on the nearest one that is there."""
    held, moved = points.copy(), np.zeros_like(points)
    held[:, Body.NECK] = _necks(points, scores)
    moved[:, Body.NECK] = held[:, Body.NECK] * travel
    for child, (parent, limb) in _TREE.items():
        held[:, child] = np.where(scores[:, child, None] > 0, points[:, child], held[:, parent])
        moved[:, child] = moved[:, parent] + ratios[limb] * (held[:, child] - held[:, parent])
    return moved


def _necks(points: np.ndarray, scores: np.ndarray) -> Float[np.ndarray, "frames 2"]:
    """The neck in every frame: seen, else guessed from the joints around it.

    A joint's guess is its position plus the median way from it to the neck in the frames that show both. Without any
    neck in the clip the most reliable joint stands in for it, so that the figure is scaled about that one.
    """
    neck, present = points[:, Body.NECK], scores > 0
    root = Body.NECK if present[:, Body.NECK].any() else int(scores[:, :18].sum(0).argmax())
    guesses, weights = [], []
    for joint in (Body.NOSE, Body.R_SHOULDER, Body.L_SHOULDER, Body.R_HIP, Body.L_HIP, root):
        both = present[:, joint] & present[:, root]
        if both.any():
            guesses.append(points[:, joint] + np.median(points[both, root] - points[both, joint], axis=0))
            weights.append(scores[:, joint])
    if not guesses:  # hands or a face alone
        return np.zeros_like(neck)
    weight = np.array(weights)[..., None]  # [J, F, 1]
    guess = (np.array(guesses) * weight).sum(0) / np.maximum(weight.sum(0), 1e-9)
    return np.where(present[:, Body.NECK, None], neck, guess)


def _middle(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return np.median(points[scores > SEEN], axis=0)


def _quantile(values: np.ndarray, weights: np.ndarray, fraction: float) -> float | None:
    """The smallest value that, with all below it, holds `fraction` of the weight; None without any weight."""
    if not weights.any():
        return None
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, fraction * cumulative[-1])])


def _name(joint: Body) -> str:
    side, _, part = joint.name.lower().rpartition("_")
    return f"{ {'r': 'right ', 'l': 'left '}.get(side, '') }{part}"
