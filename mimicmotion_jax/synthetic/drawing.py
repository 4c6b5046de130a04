"""Flat shapes with soft shading, and the painter that lays them one over another.

The painter keeps three pictures, drawn several times too large: plain colour, light (255 is full), and which part of
the figure is on top. Light multiplies colour, so patterns and shading are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mimicmotion_jax.synthetic.appearance import Colour

_FRACTION_BITS = 4  # fixed-point coordinates of OpenCV
_ARC = 11  # number of corners of the half circle at each end of a capsule
RIM_LIGHT, LIGHTS = 120, (208, 234, 255)  # light of the outline; of the shaded side, the middle, the lit side
_BLEND = 0.016  # heights
_TOWARDS_LIGHT = np.array([-0.55, -0.83])

Polygon = Float[np.ndarray, "frames corners 2"]  # in pixels of the painter's pictures


@dataclass(frozen=True, eq=False)
class Fill:
    """Filled polygon in every frame; without a colour it changes only the light, without a light only the colour."""

    polygon: Int[np.ndarray, "frames corners 2"]
    colour: Colour | None
    light: int | None
    convex: bool = True
    shown: Bool[np.ndarray, " frames"] | None = None


@dataclass(eq=False)
class Layer:
    """Part of the figure. Consecutive layers of one group share an outline."""

    part: int
    group: str
    depth: Float[np.ndarray, " frames"]  # larger is farther away
    rim: list[Fill] = field(default_factory=list)
    body: list[Fill] = field(default_factory=list)
    blend: float = 0.0  # how gradually it changes places with others, see `orders`
    follows: bool = False  # it does so together with another one


def fill(
    polygon: Polygon,
    colour: Colour | None,
    light: int | None = None,
    convex: bool = True,
    shown: Bool[np.ndarray, " frames"] | None = None,
) -> Fill:
    """Make a `Fill` from corners in pixels; whole numbers are the corners between pixels."""
    whole = np.rint((np.clip(polygon, -4000, 8000) - 0.5) * 2**_FRACTION_BITS).astype(np.int32, order="C")
    return Fill(whole, colour, light, convex, shown)


def capsule(a: Float[np.ndarray, "frames 2"], b: np.ndarray, radius_a: float, radius_b: float) -> Polygon:
    """Return the outline of two discs and the area between them."""
    way = b - a
    length = np.hypot(way[:, 0], way[:, 1])
    angle = np.arctan2(way[:, 1], way[:, 0])[:, None]
    tangent = np.arccos(np.clip((radius_a - radius_b) / np.maximum(length, 1e-6), -1, 1))[:, None]
    steps = np.linspace(0, 1, _ARC)
    around_a = angle + tangent + steps * (2 * np.pi - 2 * tangent)
    around_b = angle - tangent + steps * (2 * tangent)
    discs = (
        a[:, None] + radius_a * np.stack([np.cos(around_a), np.sin(around_a)], axis=-1),
        b[:, None] + radius_b * np.stack([np.cos(around_b), np.sin(around_b)], axis=-1),
    )
    return np.concatenate(discs, axis=1)


def ellipse(
    centre: Float[np.ndarray, "frames 2"], x_axis: np.ndarray, y_axis: np.ndarray, corners: int = 28
) -> Polygon:
    """Return an ellipse with the given half axes, each [frames, 2] or [2]."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)[:, None]
    return (
        centre[:, None]
        + np.cos(angle) * np.atleast_2d(x_axis)[:, None]
        + np.sin(angle) * np.atleast_2d(y_axis)[:, None]
    )


def shaded_capsule(a: np.ndarray, b: np.ndarray, radius_a: float, radius_b: float, colour: Colour) -> list[Fill]:
    """Return a capsule in three steps of light."""
    fills = [fill(capsule(a, b, radius_a, radius_b), colour, LIGHTS[0])]
    for inset, light in zip((0.17, 0.38), LIGHTS[1:], strict=True):
        lit_a, lit_b = a + inset * radius_a * _TOWARDS_LIGHT, b + inset * radius_b * _TOWARDS_LIGHT
        fills.append(fill(capsule(lit_a, lit_b, (1 - inset) * radius_a, (1 - inset) * radius_b), None, light))
    return fills


def orders(layers: Sequence[Layer], frame: int) -> list[tuple[float, list[Layer]]]:
    """Return the orders in which a frame is to be painted, with their shares of the picture.

    Depths count as known to within `_BLEND` times a layer's `blend`. Two layers of different groups that pass each
    other where they overlap are therefore painted in both orders, whose shares change continuously, so that the picture
    does not jump.
    """
    depth = np.array([layer.depth[frame] for layer in layers])
    blend = np.array([layer.blend for layer in layers])
    if not blend.any():
        return [(1.0, sorted(layers, key=lambda layer: -layer.depth[frame]))]
    leading = ~np.array([layer.follows for layer in layers])
    pairs = (blend[:, None] > blend) & leading[:, None] & leading
    pairs &= abs(depth[:, None] - depth) < _BLEND / 2 * (blend[:, None] - blend)
    meeting = [
        (depth[i] - depth[j]) / (blend[j] - blend[i])
        for i, j in np.argwhere(pairs)
        if layers[i].group != layers[j].group and _boxes_meet(layers[i], layers[j], frame)
    ]
    edges = np.array([-_BLEND / 2, *sorted(meeting), _BLEND / 2])
    found: list[tuple[float, list[Layer]]] = []
    for low, high in pairwise(edges):
        if high - low > 0.08 * _BLEND or not meeting:
            order = np.argsort(-(depth + blend * (low + high) / 2), kind="stable")
            found.append((high - low, [layers[i] for i in order]))
    total = sum(share for share, _ in found)
    return [(share / total, order) for share, order in found]


def _boxes_meet(first: Layer, second: Layer, frame: int) -> bool:
    """Return True if the boxes around two layers overlap."""
    shapes = [layer.rim or layer.body for layer in (first, second)]
    if not all(shapes):
        return False
    boxes = [np.concatenate([shape.polygon[frame] for shape in found]) for found in shapes]
    (low, high), (other_low, other_high) = ((box.min(0), box.max(0)) for box in boxes)
    return bool((low <= other_high).all() and (other_low <= high).all())


class Painter:
    """Painter of layers, one over another."""

    def __init__(self, width: int, height: int, scale: int):
        self.size, self.scale = (width, height), scale
        self._colour = np.zeros((height * scale, width * scale, 3), np.uint8)
        self._aux = np.zeros((height * scale, width * scale, 2), np.uint8)  # part, light

    def paint(self, layers: Sequence[Layer], frame: int) -> None:
        """Paint one frame over the earlier one, from the first layer to the last."""
        self._aux[:] = 0
        for _, run in groupby(layers, key=lambda layer: layer.group):
            group = list(run)
            for layer in group:
                for shape in layer.rim:
                    self._draw(shape, layer.part, frame)
            for layer in group:
                for shape in layer.body:
                    self._draw(shape, layer.part, frame)

    def parts(self) -> UInt8[np.ndarray, "tall wide"]:
        """Return the part on top at every pixel, 0 for none; a view that the next frame changes."""
        return self._aux[..., 0]

    def over(
        self, background: UInt8[np.ndarray, "height width 3"]
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Return the figure on a background, and a mask of pixels that it covers by more than half."""
        picture, cover = background.copy(), np.zeros(self.size[::-1], np.uint8)
        inside = (self._aux[..., 0] > 0).astype(np.uint8) * np.uint8(255)
        x, y, width, height = cv2.boundingRect(inside)
        if width == 0:
            return picture, cover > 0
        # Whole pixels of the picture around the figure.
        left, top = x // self.scale, y // self.scale
        right, bottom = -(-(x + width) // self.scale), -(-(y + height) // self.scale)
        here = slice(top, bottom), slice(left, right)
        large = slice(top * self.scale, bottom * self.scale), slice(left * self.scale, right * self.scale)
        light = cv2.cvtColor(cv2.extractChannel(self._aux[large], 1), cv2.COLOR_GRAY2RGB)
        lit = cv2.multiply(self._colour[large], light, scale=1 / 255)
        size = (right - left, bottom - top)
        figure = cv2.resize(lit, size, interpolation=cv2.INTER_AREA)
        cover[here] = cv2.resize(inside[large], size, interpolation=cv2.INTER_AREA)
        clear = cv2.cvtColor(255 - cover[here], cv2.COLOR_GRAY2RGB)
        picture[here] = cv2.add(figure, cv2.multiply(background[here], clear, scale=1 / 255))
        return picture, cover > 127

    def _draw(self, shape: Fill, part: int, frame: int) -> None:
        if shape.shown is not None and not shape.shown[frame]:
            return
        corners = shape.polygon[frame]
        for picture, value in (
            (self._colour, shape.colour),
            (self._aux, None if shape.light is None else (part, shape.light)),
        ):
            if value is None:
                continue
            if shape.convex:
                cv2.fillConvexPoly(picture, corners, value, cv2.LINE_8, _FRACTION_BITS)
            else:
                cv2.fillPoly(picture, [corners], value, cv2.LINE_8, _FRACTION_BITS)
