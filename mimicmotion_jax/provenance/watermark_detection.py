"""Finding of the watermark in a video that was compressed, scaled, cropped, re-timed, mirrored or turned.

1. Each frame's brightness is high-passed and divided by its local contrast, so that no edge counts much, and the frames
   are averaged: the pattern stays, moving content goes.
2. The pattern's period in the file is unknown, because it may have been scaled. For each candidate period P the average
   is correlated with the waves exp(-2πi (i x + j y) / P) of the key's frequencies (i, j): complex numbers X[i, j].
3. Where the period is right, the phase of X[i, j] is the key's φ[i, j] plus 2π(i a + j b), with the same unknown shift
   (a, b) for all. The score for a shift is

       score = Σ w cos(arg X - φ - 2π(i a + j b)) / sqrt(Σ w² / 2),      w = |X|^(1/2)

   and for all shifts on a grid it is one inverse FFT. The largest over periods, shifts and the eight mirrorings and
   quarter turns is the score of the video.

False positives. Without a mark the data know nothing of the key, whose phases are independent and uniform. So, whatever
the pictures show and whatever the weights, each term is w cos(uniform angle), whose moment generating function is
I0(λw) <= exp(λ²w²/4). Chernoff's bound gives P(score > s) <= exp(-s²/2) for one candidate, and the union bound for all
N candidates

    P(score of the video > s) <= N exp(-s²/2).

`false_positive_rate` returns this bound: it holds for every video and assumes nothing about it.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Complex, Float, UInt8

from mimicmotion_jax.provenance.watermark import BAND, KEY, PERIOD, key_phases

MAX_FALSE_POSITIVE_RATE = 1e-6
"""Bound below which a watermark counts as found."""

SCALES = (0.45, 1.8)
"""Searched sizes of the file's pictures relative to those that were generated."""

_MAX_SIDE = 1900  # pixels: larger pictures are scaled down first
_GRID = 64  # shifts per period and direction
_LIMIT = int(BAND[1])
_CANDIDATES = 8 * _GRID**2  # for each period: mirrorings and turns, shifts


@dataclass(frozen=True)
class Detection:
    """Result of a search.

    Attributes:
        score: largest correlation, in standard deviations of one candidate.
        false_positive_rate: upper bound of the probability that an unmarked video scores as high.
        scale: size of the file's pictures relative to the generated ones, for the best candidate.
        num_frames: frames that were looked at.
    """

    score: float
    false_positive_rate: float
    scale: float
    num_frames: int

    @property
    def found(self) -> bool:
        """Return True if the watermark is there, at a false-positive rate of at most one in a million."""
        return self.false_positive_rate <= MAX_FALSE_POSITIVE_RATE


def false_positive_rate(score: float, num_candidates: int) -> float:
    """Upper bound of the probability that an unmarked video reaches `score` (see the module's derivation)."""
    return min(1.0, num_candidates * math.exp(-0.5 * max(score, 0.0) ** 2))


def detect(frames: Iterable[UInt8[np.ndarray, "height width 3"]], key: int = KEY) -> Detection:
    """Search for the watermark in frames of one video, in any order and number.

    Args:
        frames: RGB, all of one size.
        key: seed of the pattern's phases.
    """
    return detect_keys(frames, [key])[0]


def detect_keys(frames: Iterable[UInt8[np.ndarray, "height width 3"]], keys: Sequence[int]) -> list[Detection]:
    """Search for the marks of several keys, as `detect` for one: a test of the false-positive rate."""
    average, num_frames = _average(frames)
    periods = _periods(max(average.shape))
    spectra = [_spectrum(average, period) for period in periods]
    found = []
    for key in keys:
        scores = [float(score_shifts(spectrum, key).max()) for spectrum in spectra]
        best = int(np.argmax(scores))
        rate = false_positive_rate(scores[best], len(periods) * _CANDIDATES)
        found.append(Detection(scores[best], rate, float(periods[best]) / PERIOD, num_frames))
    return found


def _average(frames: Iterable[UInt8[np.ndarray, "height width 3"]]) -> tuple[Float[np.ndarray, "h w"], int]:
    """Mean of the whitened frames, and their number."""
    number, total = 0, np.zeros((1, 1), np.float32)
    for number, frame in enumerate(frames, start=1):
        total = _whiten(frame) if number == 1 else total + _whiten(frame)
    return total / max(number, 1), number


def _whiten(frame: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "h w"]:
    """High-passed brightness over its local standard deviation."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    shrink = max(grey.shape) / _MAX_SIDE
    if shrink > 1:
        grey = cv2.resize(grey, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    residual = grey - cv2.blur(grey, (7, 7))
    deviation = np.sqrt(np.maximum(cv2.blur(residual * residual, (7, 7)), 0))
    return np.clip(residual / (deviation + 0.5), -2, 2)


def _periods(side: int) -> np.ndarray:
    """Candidate periods in pixels, evenly spaced in frequency, so close that none falls between two."""
    # Half a step at the highest frequency moves the phase by half a radian at the picture's ends.
    step = 2 / (math.pi * BAND[1] * side)
    return 1 / np.arange(1 / (PERIOD * SCALES[1]), 1 / (PERIOD * SCALES[0]), step)


def _spectrum(average: Float[np.ndarray, "h w"], period: float) -> Complex[np.ndarray, "i j"]:
    """X[i, j] for i from 0 and j from -_LIMIT to _LIMIT."""
    down = average.T @ _waves(average.shape[0], period)  # cosines, then sines
    down = down[:, : _LIMIT + 1] - 1j * down[:, _LIMIT + 1 :]
    across = _waves(average.shape[1], period)
    across = across[:, : _LIMIT + 1] - 1j * across[:, _LIMIT + 1 :]
    right, left = down.T @ across, down.T @ across.conj()
    return np.concatenate([left[:, :0:-1], right], axis=1)


def _waves(length: int, period: float) -> Float[np.ndarray, "length n"]:
    """Cosines of 0 to _LIMIT cycles per period, then sines."""
    angle = (2 * np.pi / period) * np.arange(length)[:, None] * np.arange(_LIMIT + 1)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@functools.lru_cache(4)
def _templates(key: int) -> Complex[np.ndarray, "8 i j"]:
    """The key's exp(-iφ) where X[i, j] belongs to the pattern, else 0; for each mirroring and quarter turn."""
    templates = np.zeros((8, _LIMIT + 1, 2 * _LIMIT + 1), np.complex64)
    for template, (swap, up, left) in zip(templates, itertools.product((0, 1), (1, -1), (1, -1)), strict=True):
        for (i, j), phase in zip(*key_phases(key), strict=True):
            i, j = (j, i) if swap else (i, j)
            i, j = i * up, j * left
            sign = 1 if i > 0 or (i == 0 and j > 0) else -1
            template[i * sign, j * sign + _LIMIT] = np.exp(-1j * phase * sign)
    return templates


def score_shifts(spectrum: Complex[np.ndarray, "i j"], key: int = KEY) -> Float[np.ndarray, "8 grid grid"]:
    """Scores of one period for each mirroring and turn and each shift (a, b), in steps of the period / grid.

    Args:
        spectrum: X[i, j] for i from 0 and j from -limit to limit, `limit` the largest frequency of the pattern.
        key: seed of the pattern's phases.
    """
    templates = _templates(key)
    weights = np.sqrt(np.abs(spectrum)) * (templates[0] != 0)
    product = templates * (weights * np.exp(1j * np.angle(spectrum)))
    grid = np.zeros((len(templates), _GRID, _GRID), np.complex64)
    grid[:, : _LIMIT + 1, : _LIMIT + 1] = product[:, :, _LIMIT:]
    grid[:, : _LIMIT + 1, -_LIMIT:] = product[:, :, :_LIMIT]
    return np.fft.fft2(grid).real / np.sqrt((weights**2).sum() / 2 + 1e-30)
