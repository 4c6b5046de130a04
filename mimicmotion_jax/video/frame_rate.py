"""Frame rates: exact fractions, and the rate assumed for files that record none."""

from fractions import Fraction

from mimicmotion_jax.runtime.assumptions import assume


def exact_rate(fps: float | Fraction) -> Fraction:
    """Return the frame rate as a fraction: 15.0 is 15, and the rounded broadcast rates (29.97) are n * 1000 / 1001."""
    if isinstance(fps, Fraction):
        return fps
    rate = Fraction(fps).limit_denominator(1000)
    broadcast = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return broadcast if rate.denominator > 1 and abs(broadcast - rate) < Fraction(1, 200) else rate


def assume_rate(path: str, fps: float) -> None:
    """State the frame rate that is assumed for a file that does not record one."""
    assume(f"{path} does not record its frame rate: {fps:g} assumed; motion_fps sets another.")
