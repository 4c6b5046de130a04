"""Noise levels of the denoising steps: SVD's own, and others that make do with fewer steps."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.diffusion.edm import SIGMA_MAX, SIGMA_MIN, karras_sigmas

ScheduleName = Literal["karras", "ays", "exponential"]

AYS_SIGMAS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
"""Levels of ten steps that Align Your Steps (Sabour et al. 2024) found for SVD; the last stands for 0."""


def make_sigmas(schedule: ScheduleName | Sequence[float], steps: int) -> Float[np.ndarray, " levels"]:
    """Compute the noise levels of a schedule, descending, float32; the last is 0.

    Args:
        schedule: "karras" (Karras et al. 2022, equation 5, as SVD has it), "ays" (Align Your Steps, interpolated for
            other numbers of steps), "exponential" (even steps of ln sigma), or the levels themselves, to which 0 is
            added where it is missing.
        steps: number of steps, at least 1; levels that are given decide it themselves.

    Raises:
        ValueError: given levels that do not descend, or lie outside of 0 to 10,000.
    """
    if not isinstance(schedule, str):
        return _given(schedule)
    if schedule == "karras":
        return karras_sigmas(steps)
    if schedule == "exponential":
        return np.append(np.geomspace(SIGMA_MAX, SIGMA_MIN, steps), 0).astype(np.float32)
    # Log-linear between the published levels, as their authors do it.
    places = np.linspace(0, len(AYS_SIGMAS) - 1, steps + 1)
    sigmas = np.exp(np.interp(places, np.arange(len(AYS_SIGMAS)), np.log(AYS_SIGMAS)))
    return np.append(sigmas[:-1], 0).astype(np.float32)


def _given(levels: Sequence[float]) -> Float[np.ndarray, " levels"]:
    sigmas = np.asarray([*levels] if levels and levels[-1] == 0 else [*levels, 0.0], np.float32)
    if len(sigmas) < 2 or not (np.diff(sigmas) < 0).all() or not 0 < sigmas[0] <= 1e4:
        raise ValueError(f"schedule: noise levels must descend from at most 10,000 to 0, not {list(levels)}")
    return sigmas
