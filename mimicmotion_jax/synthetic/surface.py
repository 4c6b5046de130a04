"""Surfaces of rounded parts, and patterns of cloth that stick to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mimicmotion_jax.synthetic.appearance import Fabric
from mimicmotion_jax.synthetic.drawing import Fill, Polygon, fill

_TORSO = 0.34  # heights; only upper bodies are longer


@dataclass(frozen=True, eq=False)
class Strip:
    """Surface of a rounded part: its middle and half width at evenly spaced rows, and its turn.

    A position is t, from 0 to 1 along the part, and a longitude: 0 faces forwards, and pi / 2 is the edge towards
    `across` unless the part is turned. Positions that are turned away are put on the edge.
    """

    centre: Float[np.ndarray, "frames rows 2"]
    across: Float[np.ndarray, "frames rows 2"]
    turn: Float[np.ndarray, " frames"]
    twist: Float[np.ndarray, " frames"] | None = None  # further turn at t = 1

    def at(self, t: Sequence[float] | np.ndarray, longitude: Sequence[float] | np.ndarray) -> Polygon:
        """Return positions on the surface."""
        turned = np.asarray(longitude) + self.turn[:, None]
        if self.twist is not None:
            turned = turned + self.twist[:, None] * t
        # A shape that has come round to the front again lies within half a turn of it.
        middle = turned.mean(1, keepdims=True)
        turned = turned - np.where(abs(middle) > 1.5 * np.pi, 2 * np.pi * np.rint(middle / (2 * np.pi)), 0)
        return self.flat(t, np.sin(np.clip(turned, -np.pi / 2, np.pi / 2)))

    def flat(self, t: Sequence[float] | np.ndarray, s: np.ndarray | float) -> Polygon:
        """Return positions given by t and the place across the visible side, from -1 to 1."""
        position = np.clip(np.asarray(t, float), 0, 1) * (self.centre.shape[1] - 1)
        low = np.minimum(position.astype(int), self.centre.shape[1] - 2)
        part = (position - low)[:, None]
        centre = self.centre[:, low] * (1 - part) + self.centre[:, low + 1] * part
        across = self.across[:, low] * (1 - part) + self.across[:, low + 1] * part
        return centre + across * np.broadcast_to(s, centre.shape[:2])[..., None]

    def band(self, t0: float, t1: float, left: float = -1, right: float = 1) -> Polygon:
        """Return the area between two rows and two fractions of the width."""
        t = np.linspace(t0, t1, 2 + round((t1 - t0) * (self.centre.shape[1] - 1)))
        return np.concatenate([self.flat(t, left), self.flat(t[::-1], right)], axis=1)

    def column(self, t0: float, t1: float, start: float, end: float) -> Polygon:
        """Return the area between two rows and two longitudes."""
        t = np.linspace(t0, t1, 2 + round((t1 - t0) * (self.centre.shape[1] - 1)))
        return self.at(np.append(t, t[::-1]), np.repeat([start, end], len(t)))


def pattern(strip: Strip, fabric: Fabric, length: float, radius: float) -> list[Fill]:
    """Return the fabric's pattern on a strip of the given length and mean half width, in heights.

    Large parts only have a broad band; the chest only has a spot.
    """
    rows = max(1, round(length / fabric.pitch))
    columns = max(4, 2 * round(np.pi * radius / fabric.pitch))
    starts = np.arange(rows) / rows
    longitudes = (np.arange(-columns // 2, columns // 2) + 0.25) * 2 * np.pi / columns
    mixed = tuple((a + b) // 2 for a, b in zip(fabric.colour, fabric.accent, strict=True))
    bands = [strip.band(t + 0.25 / rows, t + 0.75 / rows) for t in starts]
    lines = [strip.column(0, 1, start, start + np.pi / columns) for start in longitudes]
    match fabric.pattern:
        case "stripes":
            return [fill(band, fabric.accent, convex=False) for band in bands]
        case "columns":
            return [fill(line, fabric.accent, convex=False) for line in lines]
        case "checks":
            cells = [
                strip.column(t + 0.25 / rows, t + 0.75 / rows, start, start + np.pi / columns)
                for t in starts
                for start in longitudes
            ]
            woven = [fill(polygon, mixed, convex=False) for polygon in bands + lines]
            return woven + [fill(cell, fabric.accent, convex=False) for cell in cells]
        case "dots":
            angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
            dots = [
                strip.at(
                    t + (0.5 + 0.3 * np.sin(angle)) / rows, start + (np.pi / columns) * (i % 2 + 0.62 * np.cos(angle))
                )
                for i, t in enumerate(starts)
                for start in longitudes
            ]
            return [fill(dot, fabric.accent, convex=False) for dot in dots]
        case "logo" if length > _TORSO:
            angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
            return [fill(strip.at(0.44 + 0.1 * np.sin(angle), 0.45 * np.cos(angle)), fabric.accent, convex=False)]
        case "band" if length > _TORSO / 2:
            return [fill(strip.band(0.38, 0.62), fabric.accent, convex=False)]
    return []


def resampled(
    rows: Float[np.ndarray, "frames rows 2"], place: Float[np.ndarray, " rows"], count: int = 21
) -> Float[np.ndarray, "frames fine 2"]:
    """Resample rows at equal distances along a Catmull-Rom spline through those at the given positions."""
    padded = np.concatenate([rows[:, :1], rows, rows[:, -1:]], axis=1)
    position = np.interp(np.linspace(place[0], place[-1], count), place, np.arange(len(place)))
    i = np.minimum(position.astype(int), len(place) - 2)
    u = (position - i)[:, None]
    p0, p1, p2, p3 = (padded[:, i + k] for k in range(4))
    return 0.5 * (2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2 + (3 * p1 - p0 - 3 * p2 + p3) * u**3)


def grown(strip: Strip, rim: float) -> np.ndarray:
    """Return the strip's outline, larger by `rim` at its sides and its lower end."""
    length = np.linalg.norm(strip.across, axis=-1, keepdims=True)
    wider = Strip(strip.centre, strip.across * (1 + rim / np.maximum(length, 1e-6)), strip.turn)
    outline = wider.band(0, 1)
    rows = outline.shape[1] // 2
    outline[:, [rows - 1, rows], 1] += rim
    return outline
