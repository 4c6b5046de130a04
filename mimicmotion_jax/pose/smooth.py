"""The one-euro filter (Casiez et al., CHI 2012) against jitter: strong on points at rest, weak on fast ones."""

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped

MIN_CUTOFF = 1.5  # Hz, of a point at rest
SPEED_CUTOFF = 10.0  # Hz more for each picture height per second
DERIVATIVE_CUTOFF = 1.0  # Hz


@jaxtyped(typechecker=beartype)
def one_euro(
    points: Float[np.ndarray, "frames points 2"], present: Bool[np.ndarray, "frames points"], fps: float
) -> Float[np.ndarray, "frames points 2"]:
    """Smooth points given in picture heights; a point that was absent from a frame starts afresh in the next.

    The filter is causal and therefore late. A whole clip is at hand here, so it runs forwards and backwards and the
    mean of the two is returned, in which the delays cancel.
    """
    forwards = _filter(points, present, fps)
    backwards = _filter(points[::-1], present[::-1], fps)[::-1]
    return (forwards + backwards) / 2


def _filter(points: np.ndarray, present: np.ndarray, fps: float) -> np.ndarray:
    smooth, speed = points.copy(), np.zeros(points.shape[1:])
    for now in range(1, len(points)):
        known = (present[now] & present[now - 1])[:, None]
        measured = (points[now] - smooth[now - 1]) * fps
        speed = np.where(known, speed + _gain(DERIVATIVE_CUTOFF, fps) * (measured - speed), 0)
        cutoff = MIN_CUTOFF + SPEED_CUTOFF * np.linalg.norm(speed, axis=-1, keepdims=True)
        step = _gain(cutoff, fps) * (points[now] - smooth[now - 1])
        smooth[now] = np.where(known, smooth[now - 1] + step, points[now])
    return smooth


def _gain(cutoff: np.ndarray | float, fps: float) -> np.ndarray | float:
    """Weight of the new sample in a first-order low-pass filter: dt / (dt + 1 / (2 pi cutoff))."""
    return 1 / (1 + fps / (2 * np.pi * cutoff))
