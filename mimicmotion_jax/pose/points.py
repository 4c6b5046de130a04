"""Points, numbers and sizes as files of other programs spell them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.pose.keypoints import MAX_FPS, MAX_SIDE, MIN_FPS
from mimicmotion_jax.runtime.errors import InputError

_COORDINATES = ("x", "y")
_SCORES = ("score", "confidence", "conf", "visibility", "v", "c", "s")


def to_points(value: Any, what: str) -> Float[np.ndarray, "points 3"] | None:
    """Read a list of points: flat x, y, score; rows of x, y and perhaps a score; or {"x": …, "y": …, "score": …}.

    A null stands for a missing point. Without scores, points at (0, 0) and (-1, -1) are missing and others have 1.

    Returns:
        x, y and score; None for an empty list or null.

    Raises:
        InputError: something else; `what` names it.
    """
    if value is None or len(value) == 0:
        return None
    if isinstance(value, list | tuple):
        if any(isinstance(point, Mapping) for point in value):
            value = [_from_mapping(point) for point in value]
        width = max((len(point) for point in value if isinstance(point, list | tuple)), default=0)
        if width:
            value = [[None] * width if point is None else point for point in value]
    array = to_numbers(value, what)
    if array.ndim == 1:
        array = array.reshape(-1, 3) if len(array) % 3 == 0 else array.reshape(-1, 2) if len(array) % 2 == 0 else array
    if array.ndim != 2 or array.shape[1] < 2:
        raise InputError(f"{what} has {array.size} numbers, which are no points of x, y and score.")
    return with_scores(array)


def with_scores(array: Float[np.ndarray, "*points columns"]) -> Float[np.ndarray, "*points 3"]:
    """Add scores to points that have none: 0 at (0, 0) and (-1, -1), which stand for missing ones, and 1 elsewhere."""
    if array.shape[-1] >= 3:
        return array[..., :3]
    missing = (array == 0).all(-1) | (array == -1).all(-1) | np.isnan(array).any(-1)
    return np.concatenate([array, ~missing[..., None]], axis=-1)


def to_numbers(value: Any, what: str) -> np.ndarray:
    """Convert nested lists to an array of numbers; null becomes NaN.

    Raises:
        InputError: something else in them, or rows of different lengths.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            if any(not (item is None or isinstance(item, int | float | np.number)) for item in array.flat):
                raise TypeError
            array = array.astype(np.float64)
        if array.dtype.kind not in "fiub":
            raise TypeError
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} holds something else than rows of numbers.") from None


def read_size(values: Mapping[str, Any]) -> tuple[int | None, int | None, float | None]:
    """Read width, height and frames per second under their usual names; None for what is not there.

    Raises:
        InputError: values that no video has.
    """

    def find(names: Sequence[str], low: float, high: float) -> float | None:
        name = next((name for name in names if values.get(name) is not None), None)
        if name is None:
            return None
        found = values[name]
        if isinstance(found, bool) or not isinstance(found, int | float | np.number) or not low <= found <= high:
            raise InputError(f"{name} should be a number from {low:g} to {high:g}.")
        return float(found)

    width, height = (
        find([f"canvas_{side}", side, f"image_{side}", f"img_{side}", f"frame_{side}", f"video_{side}"], 1, MAX_SIDE)
        for side in ("width", "height")
    )
    fps = find(["fps", "frame_rate", "framerate", "video_fps"], MIN_FPS, MAX_FPS)
    return (int(width) if width else None), (int(height) if height else None), fps


def _from_mapping(point: Any) -> list[Any]:
    if not isinstance(point, Mapping):
        return [None, None, None]
    score = next((point[name] for name in _SCORES if point.get(name) is not None), 1)
    return [*(point.get(name) for name in _COORDINATES), score]
