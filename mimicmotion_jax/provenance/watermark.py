"""Invisible watermark: a faint fixed pattern in the brightness of every frame that says "made by this software".

The pattern repeats every `PERIOD` pixels in both directions. One period is a sum of cosines of one amplitude whose
frequencies (i, j), in cycles per period, fill a ring of medium frequencies. Each has a phase φ of its own, drawn once
from a generator seeded by `KEY`:

    m(x, y) = Σ cos(2π(i x + j y) / PERIOD + φ[i, j])

Medium frequencies survive what high ones do not (compression, scaling) and are seen less than low ones. The pattern is
stronger where a frame is busy, by at most `_MAX_RATIO`, and its power is set for each frame so that the marked frame
has `PSNR` decibels against the unmarked one. It carries no message but its presence. `watermark_detection` finds it.
"""

import functools

import cv2
import numpy as np
from jaxtyping import Float, UInt8

KEY = 0x6D696D69636D6F74
"""Seed of the phases. It is public, as the software is: whoever wants to can remove or imitate the mark."""

PERIOD = 128
"""Pixels after which the pattern repeats, at the size that was generated."""

BAND = (5.0, 14.0)
"""Frequencies of the pattern: inner and outer radius of a ring, in cycles per period."""

PSNR = 44.3
"""Decibels of a marked frame against the unmarked one."""

MIN_SIDE = 192
"""Pixels; the pattern is not found in smaller pictures."""

_MAX_RATIO = 2.5
_ACTIVITY = 6.0  # local standard deviation of brightness at which the pattern has half of its range
_SHRINK = 8  # local activity is measured and the strength chosen on a grid of this many pixels


@functools.cache
def key_phases(key: int = KEY) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of the pattern int [K, 2] (rows i >= 0, columns j) and their phases [K], of one half plane."""
    limit = int(BAND[1])
    i, j = np.mgrid[0 : limit + 1, -limit : limit + 1]
    radius = np.hypot(i, j)
    chosen = (radius >= BAND[0]) & (radius <= BAND[1]) & ((i > 0) | (j > 0))
    frequencies = np.stack([i[chosen], j[chosen]], axis=1)
    return frequencies, np.random.default_rng(key).uniform(0, 2 * np.pi, len(frequencies))


@functools.lru_cache(4)
def _pattern(height: int, width: int) -> Float[np.ndarray, "2 height width"]:
    """The pattern for a frame of this size, with a mean square of 1, and the same negated."""
    frequencies, phases = key_phases()
    spectrum = np.zeros((PERIOD, PERIOD), complex)
    spectrum[frequencies[:, 0], frequencies[:, 1]] = np.exp(1j * phases)
    tile = np.fft.ifft2(spectrum).real
    tile = (tile / np.sqrt(np.mean(tile**2))).astype(np.float32)
    whole = np.tile(tile, (-(-height // PERIOD), -(-width // PERIOD)))[:height, :width]
    return np.stack([whole, -whole])


def mark(frames: UInt8[np.ndarray, "n height width 3"]) -> UInt8[np.ndarray, "n height width 3"]:
    """Return marked copies of RGB frames."""
    marked = np.empty_like(frames)
    for source, destination in zip(frames, marked, strict=True):
        _mark_frame(source, destination)
    return marked


def _mark_frame(frame: UInt8[np.ndarray, "height width 3"], marked: UInt8[np.ndarray, "height width 3"]) -> None:
    height, width = frame.shape[:2]
    strength = cv2.resize(_strength(frame), (width, height), interpolation=cv2.INTER_LINEAR)
    # Saturated arithmetic on bytes, rises and falls one after the other, is the fastest.
    rise, fall = (cv2.multiply(part, strength, dtype=cv2.CV_8U) for part in _pattern(height, width))
    cv2.add(frame, cv2.merge([rise] * 3), dst=marked)
    cv2.subtract(marked, cv2.merge([fall] * 3), dst=marked)


def _strength(frame: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "rows columns"]:
    """Root mean square of the pattern, in grey levels, on a coarse grid."""
    height, width = frame.shape[:2]
    size = max(1, width // _SHRINK), max(1, height // _SHRINK)
    half = cv2.resize(
        cv2.extractChannel(frame, 1), (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA
    )
    mean = cv2.resize(half, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    square = cv2.resize(cv2.multiply(half, half, dtype=cv2.CV_32F), size, interpolation=cv2.INTER_AREA)
    activity = np.sqrt(np.maximum(cv2.blur(square - mean * mean, (3, 3)), 0))
    strength = 1 + (_MAX_RATIO - 1) * activity / (activity + _ACTIVITY)
    budget = 255**2 / 10 ** (PSNR / 10) - 1 / 12  # less the error of rounding to whole grey levels
    return strength * np.float32(np.sqrt(budget / np.mean(strength**2)))
