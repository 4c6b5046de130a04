"""Simulation of a pose detector on a figure whose keypoints are known: errors, mistakes and confidences like DWPose's.

The model, for each point and frame, in lengths of the person's torso (neck to hips), with slow normal noise g, h and n:

    spread      s = typical * e^(spread g); 8^p times that for a hidden point, where p is the hidden part of its unit
                    (a joint, a hand, the face): one hidden finger of a visible hand is known well enough,
    error       sqrt((jitter s)^2 + (blur speed)^2) n,
    confidence  0.2 + 0.8 / (1 + (u / 3)^2),            u = that square root / typical * e^(misjudged h).

Confidence is thus about the expected error, not the actual one. Besides, points are lost, and hands mistaken for each
other; the paper's figure 7 shows these cases: keypoints found twice, a hidden hand found on the other one, and
a hidden elbow found nonetheless.
"""

from typing import Annotated

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, Int, jaxtyped
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.pose.keypoints import GROUPS, Body, Keypoints
from mimicmotion_jax.pose.layout import from_table, to_table
from mimicmotion_jax.runtime.errors import InputError

LOWEST = 0.2
"""Lowest confidence of a point that is found."""

# Points of the body, of both hands and of the face. The 18 joints, each hand and the face are units whose points fail
# together and largely share their errors.
_SIZES = [int(np.prod(points)) for points in GROUPS.values()]
_UNIT_SIZES = [1] * 18 + [21, 21, 68]
_UNIT = np.repeat(np.arange(len(_UNIT_SIZES)), _UNIT_SIZES)
_STARTS = np.cumsum([0, *_UNIT_SIZES[:-1]])
_IN_COMMON = 0.7  # of the variance
_TYPICAL = np.repeat([0.02, 0.015, 0.006], _SIZES)  # torso lengths, standard deviation of x and of y
_HAND = 18 + np.arange(42).reshape(2, 21)
_SHOULDERS = [Body.R_SHOULDER, Body.L_SHOULDER]
_NECK_THRESHOLD = 0.3  # DWPose's

_HIDDEN, _MISTAKEN = 8.0, 4.0  # times the uncertainty
_HALF = 3.0  # times the typical error: there confidence has fallen half-way
_CONDITION_SECONDS = 1.0  # how long a point stays easy or difficult
_MISTAKE_SECONDS = 0.5

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


@config_dataclass
class DetectorConfig:
    """Quality of the simulated detector; with the first seven options at 0 it makes no errors."""

    jitter: Amount = 1.0
    """Size of the errors, as a multiple of the typical one."""
    blur: Amount = 0.005
    """Error that speed adds, in seconds of motion."""
    dropped: Share = 0.01
    """Share of the time that a joint, hand or face is missing."""
    hallucinated: Share = 0.7
    """Share of the time that a joint, hand or face is found although the body hides more than half of it."""
    duplicated: Share = 0.01
    """Share of the time that a hand is reported in the place of the other one."""
    swapped: Share = 0.01
    """Share of the time that both hands are."""
    duplicated_hidden: Share = 0.3
    """Share of the time that a hidden hand is reported in the place of the other one."""
    spread: Amount = 0.7
    """Standard deviation of the logarithm of the error's size."""
    misjudged: Amount = 0.25
    """Standard deviation of the logarithm by which confidence misjudges the error's size."""
    jitter_seconds: Amount = 0.1
    """Time in seconds for which an error lasts."""


LIKE_DWPOSE = DetectorConfig()


@beartype
def simulate_detection(keypoints: Keypoints, seed: int, config: DetectorConfig = LIKE_DWPOSE) -> Keypoints:
    """Simulate the detection of a figure whose exact keypoints are known.

    Args:
        keypoints: one person; score 1 means visible and 0 hidden, coordinates are exact in both cases.
        seed: at least 0; the same seed gives the same result.
        config: quality of the detector.

    Returns:
        Scores between 0.2 and 1, or 0 for points that are missing or outside the picture. The neck follows from the
        shoulders as DWPose's does: score 1 if both exceed 0.3, otherwise 0.

    Raises:
        InputError: not one person, or a negative seed.
    """
    if keypoints.num_people != 1:
        raise InputError(f"a detection is simulated for one person, not for {keypoints.num_people}; select one first.")
    if seed < 0:
        raise InputError(f"the seed of a simulated detection is 0 or more, not {seed}.")
    random = np.random.default_rng(seed)
    points, visible = _table(keypoints)
    num_frames, fps = keypoints.num_frames, keypoints.fps
    torso = torso_length(keypoints)
    inside = ((points >= 0) & (points <= (keypoints.width, keypoints.height))).all(-1)
    velocity = np.gradient(points, axis=0) * fps if num_frames > 1 else np.zeros_like(points)
    speed = np.linalg.norm(velocity, axis=-1) / max(torso, 1e-6)  # torso lengths per second

    # Hands may be taken for each other, everything else is taken for itself.
    source = _mistake_hands(random, visible, fps, config)
    points, visible, inside, speed = (
        np.take_along_axis(array, source[..., None] if array.ndim == 3 else source, 1)
        for array in (points, visible, inside, speed)
    )
    mistaken = source != np.arange(source.shape[1])
    hidden = (np.add.reduceat(~visible, _STARTS, axis=1, dtype=float) / _UNIT_SIZES)[:, _UNIT]  # part of its unit

    condition = np.exp(config.spread * _per_point(random, num_frames, (), _CONDITION_SECONDS * fps))
    condition = np.where(visible, condition, _HIDDEN**hidden * condition)
    size = np.hypot(config.jitter * _TYPICAL * condition, config.blur * speed)  # [F, 128] torso lengths
    error = torso * size[..., None] * _per_point(random, num_frames, (2,), config.jitter_seconds * fps)
    error[:, Body.NECK] = error[:, _SHOULDERS].mean(1)
    judged = np.where(mistaken, _MISTAKEN, 1) * size / _TYPICAL
    judged = judged * np.exp(config.misjudged * _per_point(random, num_frames, (), _CONDITION_SECONDS * fps))
    score = LOWEST + (1 - LOWEST) / (1 + np.square(judged / _HALF))

    units = len(_UNIT_SIZES)
    dropped = _stretches(random, num_frames, units, config.dropped, _MISTAKE_SECONDS * fps)[:, _UNIT]
    hallucinated = _stretches(random, num_frames, units, config.hallucinated, _CONDITION_SECONDS * fps)[:, _UNIT]
    found = (visible | inside & (hallucinated | (hidden <= 0.5))) & ~dropped
    return _from_table(points + error, np.where(found, score, 0), keypoints)


def torso_length(keypoints: Keypoints) -> float:
    """Return the median distance from the neck to the middle of the hips in pixels: the person's size."""
    body = keypoints.body[:, 0].astype(np.float64) * (keypoints.width, keypoints.height)
    hips = body[:, [Body.R_HIP, Body.L_HIP]].mean(1)
    return float(np.median(np.linalg.norm(body[:, Body.NECK] - hips, axis=-1))) if len(body) else 0.0


def _mistake_hands(random: np.random.Generator, visible: np.ndarray, fps: float, config: DetectorConfig) -> np.ndarray:
    """Return, for each point and frame, the point whose position is reported [F, 128]."""
    num_frames, memory = len(visible), _MISTAKE_SECONDS * fps
    hidden = ~visible[:, _HAND].any(-1)  # [F, 2]
    duplicated = _stretches(random, num_frames, 2, config.duplicated, memory)
    duplicated_hidden = _stretches(random, num_frames, 2, config.duplicated_hidden, memory)
    swapped = _stretches(random, num_frames, 1, config.swapped, memory)
    other = np.where(hidden, duplicated_hidden, duplicated) ^ swapped
    source = np.tile(np.arange(len(_UNIT)), (num_frames, 1))
    source[:, _HAND] = np.where(other[..., None], _HAND[::-1], _HAND)
    return source


def _per_point(random: np.random.Generator, num_frames: int, shape: tuple[int, ...], memory: float) -> np.ndarray:
    """Draw normal noise [F, 128, *shape] of mean 0 and variance 1, largely shared by the points of a unit."""
    units = _wander(random, num_frames, (len(_UNIT_SIZES), *shape), memory)[:, _UNIT]
    points = _wander(random, num_frames, (len(_UNIT), *shape), memory)
    return np.sqrt(_IN_COMMON) * units + np.sqrt(1 - _IN_COMMON) * points


def _wander(random: np.random.Generator, num_frames: int, shape: tuple[int, ...], memory: float) -> np.ndarray:
    """Draw AR(1) noise [F, *shape] of mean 0 and variance 1 whose correlation falls to 1/e in `memory` frames."""
    kept = _kept(memory)
    noise = random.standard_normal((num_frames, *shape))
    noise[1:] *= np.sqrt(1 - kept**2)
    for now in range(1, num_frames):
        noise[now] += kept * noise[now - 1]
    return noise


@jaxtyped(typechecker=beartype)
def _stretches(
    random: np.random.Generator, num_frames: int, count: int, share: float, memory: float
) -> Bool[np.ndarray, "{num_frames} {count}"]:
    """Draw events that fill `share` of the frames, in stretches of `memory / (1 - share)` frames on average.

    In every frame each state is drawn anew with a probability of 1 - e^(-1 / memory).
    """
    anew = random.random((num_frames, count)) >= _kept(memory)
    drawn = random.random((num_frames, count)) < share
    last: Int[np.ndarray, "frames count"] = np.where(anew, np.arange(num_frames)[:, None], 0)
    return np.take_along_axis(drawn, np.maximum.accumulate(last, axis=0), axis=0)


def _kept(memory: float) -> float:
    return float(np.exp(-1 / memory)) if memory > 0 else 0.0


def _table(keypoints: Keypoints) -> tuple[Float[np.ndarray, "frames 128 2"], Bool[np.ndarray, "frames 128"]]:
    """Return all points of the person in pixels, and True for the visible ones."""
    points, scores = to_table(keypoints)
    return points * (keypoints.width, keypoints.height), scores > 0


def _from_table(points: np.ndarray, scores: np.ndarray, exact: Keypoints) -> Keypoints:
    points = points / (exact.width, exact.height)
    scores[:, Body.NECK] = (scores[:, _SHOULDERS] > _NECK_THRESHOLD).all(-1)
    return from_table(exact, points, np.where(((points >= 0) & (points <= 1)).all(-1), scores, 0))
