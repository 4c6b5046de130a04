"""Swing of hair and skirts: a damped spring that is drawn by the body, in closed form.

A weight on a damped spring whose other end is at p(t) is at the mean of p over the past, weighted by the spring's
impulse response. Motions are functions of time and go on before the first frame, so the mean needs no state: a frame
depends on its time alone, whatever the length and the frame rate of the video.
"""

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.motion import tracks_at
from mimicmotion_jax.synthetic.skeleton import Proportions, Sway, pose_trunk
from mimicmotion_jax.synthetic.skull import UNIT

FREQUENCY, DAMPING = 8.8, 0.4  # radians per second without damping; times critical damping
_STEP = 0.05
DELAYS = (np.arange(40) + 0.5) * _STEP
"""Seconds into the past at which the motion is sampled; what is older than 2 s has less than 1 % of the weight."""
_GAIN = 2.5  # larger than life
_HAIR_TIP = np.array([0, 1.2, 0.9]) * UNIT


def weights_of_the_past() -> Float[np.ndarray, " delays"]:
    """Return the weight of the past at `DELAYS`: the increase of the spring's step response; they add up to 1.

    Behind a constant velocity the spring lags by 2 * DAMPING / FREQUENCY seconds.
    """
    t = np.append(DELAYS - _STEP / 2, DELAYS[-1] + _STEP / 2)
    ringing = FREQUENCY * np.sqrt(1 - DAMPING**2)
    decay = np.exp(-DAMPING * FREQUENCY * t)
    response = 1 - decay * (np.cos(ringing * t) + DAMPING * FREQUENCY / ringing * np.sin(ringing * t))
    return np.diff(response) / response[-1]


def displacement(past: Float[np.ndarray, "frames delays *values"], now: np.ndarray) -> np.ndarray:
    """Return how far from its place `now` [frames, ...] the weight on the spring is, from the `past` at `DELAYS`."""
    return np.einsum("d,fd...->f...", weights_of_the_past(), past) - now


def make_sway(body: Proportions, motion: int, seconds: Float[np.ndarray, " frames"]) -> Sway:
    """Compute the swing of hair and skirt in a free motion."""
    times = seconds[:, None] - np.append(0, DELAYS)
    tracks = tracks_at(motion, times.ravel(), "free")
    trunk = pose_trunk(body, tracks)
    tip = trunk.head + trunk.head_rotation @ (body.head * _HAIR_TIP)
    yaw = tracks.heading + tracks.pelvis_turn[:, 0]

    def swing(values: np.ndarray, limit: float) -> np.ndarray:
        values = values.reshape(*times.shape, *values.shape[1:])
        return limit * np.tanh(_GAIN / limit * displacement(values[:, 1:], values[:, 0]))

    return Sway(hair=swing(tip, 0.07), hem=swing(trunk.pelvis, 0.06), twist=swing(yaw, 0.6))
