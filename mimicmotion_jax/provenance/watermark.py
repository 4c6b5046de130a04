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
from jaxtyping import UInt8

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
_FINE = 56  # steps of a grey level in bytes: the pattern rises to four times its root mean square
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
def _pattern(height: int, width: int) -> UInt8[np.ndarray, "2 height width"]:
    """Rising and falling part of the pattern, for a frame of this size: `_FINE` is its root mean square."""
    frequencies, phases = key_phases()
    spectrum = np.zeros((PERIOD, PERIOD), complex)
    spectrum[frequencies[:, 0], frequencies[:, 1]] = np.exp(1j * phases)
    tile = np.fft.ifft2(spectrum).real
    tile *= _FINE / np.sqrt(np.mean(tile**2))
    whole = np.tile(tile, (-(-height // PERIOD), -(-width // PERIOD)))[:height, :width]
    return np.stack([np.clip(np.round(part), 0, 255).astype(np.uint8) for part in (whole, -whole)])


def mark(frames: UInt8[np.ndarray, "n height width 3"]) -> UInt8[np.ndarray, "n height width 3"]:
    """Return marked copies of RGB frames."""
    height, width = frames.shape[1:3]
    marked = np.empty_like(frames)
    change, change_rgb = np.empty((height, width), np.uint8), np.empty((height, width, 3), np.uint8)
    for source, destination in zip(frames, marked, strict=True):
        strength = cv2.resize(_strength(source), (width, height), interpolation=cv2.INTER_LINEAR)  # in 1 / _FINE
        # Saturated arithmetic on bytes, first what rises and then what falls, is the fastest.
        for part, apply in zip(_pattern(height, width), (cv2.add, cv2.subtract), strict=True):
            cv2.multiply(part, strength, dst=change, scale=1 / _FINE**2, dtype=cv2.CV_8U)
            cv2.merge([change, change, change], change_rgb)
            source = apply(source, change_rgb, dst=destination)
    return marked


def _strength(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows columns"]:
    """Root mean square of the pattern, in grey levels / `_FINE`, on a coarse grid."""
    height, width = frame.shape[:2]
    size = max(1, width // _SHRINK), max(1, height // _SHRINK)
    half = np.ascontiguousarray(frame[::2, ::2, 1])  # every other green pixel stands for brightness
    mean = cv2.resize(half, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    square = cv2.resize(cv2.multiply(half, half, dtype=cv2.CV_32F), size, interpolation=cv2.INTER_AREA)
    activity = np.sqrt(np.maximum(cv2.blur(square - mean * mean, (3, 3)), 0))
    strength = 1 + (_MAX_RATIO - 1) * activity / (activity + _ACTIVITY)
    budget = 255**2 / 10 ** (PSNR / 10) - 1 / 12  # less the error of rounding to whole grey levels
    strength *= _FINE * np.sqrt(budget / np.mean(strength**2))
    return np.clip(np.round(strength), 0, 255).astype(np.uint8)
