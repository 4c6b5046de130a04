"""Frame rates: exact fractions, the rate of an irregular video, and the rate assumed for files that record none."""

from collections.abc import Sequence
from fractions import Fraction

from mimicmotion_jax.runtime.assumptions import assume

MAX_DENSE_RATE = 60
"""Frames per second of the grid for a variable frame rate, at most."""


def exact_rate(fps: float | Fraction) -> Fraction:
    """Return the frame rate as a fraction: 15.0 is 15, and the rounded broadcast rates (29.97) are n * 1000 / 1001."""
    if isinstance(fps, Fraction):
        return fps
    rate = Fraction(fps).limit_denominator(1000)
    broadcast = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return broadcast if rate.denominator > 1 and abs(broadcast - rate) < Fraction(1, 200) else rate


def dense_rate(times: Sequence[Fraction], tick: Fraction) -> Fraction:
    """Return the frame rate of the dense part of a video with a variable one, at most `MAX_DENSE_RATE`.

    It is the mean over runs of eight frames, of those that last about as long as the shortest; the shortest twentieth
    of them (bursts) is passed over. Time stamps are rounded: the rate is the nearest whole or broadcast one where that
    is within 1 %.

    Args:
        times: seconds at which the frames are shown, ascending; at least two.
        tick: unit of the time stamps, seconds.
    """
    run = min(8, len(times) - 1)
    spans = sorted(later - time for time, later in zip(times, times[run:], strict=False))
    dense = spans[len(spans) // 20]
    if dense * MAX_DENSE_RATE <= run:
        return Fraction(MAX_DENSE_RATE)
    alike = [span for span in spans if dense * Fraction(95, 100) <= span <= dense * Fraction(110, 100)]
    seconds = sum(alike, Fraction(0)) / run
    rate = len(alike) / seconds
    whole = Fraction(max(1, round(rate)))
    if abs(whole - rate) <= rate * tick / seconds:
        return whole
    nominal = min((whole, whole * 1000 / 1001), key=lambda candidate: abs(candidate - rate))
    return nominal if abs(nominal - rate) < rate / 100 else rate.limit_denominator(1001)


def assume_rate(path: str, fps: float) -> None:
    """State the frame rate that is assumed for a file that does not record one."""
    assume(f"{path} does not record its frame rate: {fps:g} assumed; motion_fps sets another.")
