"""Frame rates: exact fractions, and the rate assumed for files that record none."""

import functools
import logging
from fractions import Fraction

logger = logging.getLogger(__name__)


def exact_rate(fps: float | Fraction) -> Fraction:
    """Return the frame rate as a fraction: 15.0 is 15, and the rounded broadcast rates (29.97) are n * 1000 / 1001."""
    if isinstance(fps, Fraction):
        return fps
    rate = Fraction(fps).limit_denominator(1000)
    broadcast = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return broadcast if rate.denominator > 1 and abs(broadcast - rate) < Fraction(1, 200) else rate


@functools.cache
def log_assumed_rate(path: str, fps: float) -> None:
    """Log, once per process and path, the frame rate assumed for a file that does not record one."""
    logger.info("%s does not record its frame rate; assuming %g (motion_fps=... sets another)", path, fps)
