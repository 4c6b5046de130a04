"""Pictures, videos and curves as pieces of HTML that hold their data."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 150, 46, 22  # plot size and margins, in SVG units


def video_element(path: Path, size: tuple[int, int] | None = None) -> Markup:
    """Return a `<video>` element with the file embedded; `size` (width, height) reserves its place on the page."""
    place = "" if size is None else f' width="{size[0]}" height="{size[1]}"'
    content = base64.b64encode(path.read_bytes()).decode()
    return Markup(
        f'<video controls loop muted autoplay playsinline{place} src="data:video/mp4;base64,{content}"></video>'
    )


def image_element(pixels: UInt8[np.ndarray, "h w 3"], alt: str, lossless: bool = False) -> Markup:
    """Return an `<img>` element with the picture embedded, as a JPEG unless it must be exact."""
    file, kind = io.BytesIO(), "png" if lossless else "jpeg"
    Image.fromarray(pixels).save(file, kind, optimize=True)
    content = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    return Markup('<img alt="{}" width="{}" height="{}" src="data:image/{};base64,{}">').format(
        alt, width, height, kind, content
    )


def curves_element(
    curves: Mapping[str, Sequence[float | None]],
    marks: Sequence[float],
    label: str,
    top: float | None = None,
    ticks: Mapping[int, str] | None = None,
) -> Markup:
    """Return curves over the frames as an `<svg>`, with a dashed line at every mark.

    Args:
        curves: values by name, which is their class in the style sheet; None where there is none.
        marks: places of the lines, counted as the values of a curve are.
        label: description of the picture for those who cannot see it.
        top: upper end of the axis; None takes the largest value.
        ticks: labels below the axis by place; None numbers the first, middle and last value from 1.
    """
    length = max(len(curve) for curve in curves.values())
    if top is None:
        top = max([value for curve in curves.values() for value in curve if value is not None] or [0]) or 1
    right, floor = _WIDTH - 12, _HEIGHT - _BOTTOM

    def x(index: float) -> float:
        return round(_LEFT + (right - _LEFT) * index / max(length - 1, 1), 2)

    def y(value: float) -> float:
        return round(floor - (floor - 8) * value / top, 2)

    parts = [f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y(v)}" y2="{y(v)}"/>' for v in (0, top / 2, top)]
    parts += [f'<text x="{_LEFT - 6}" y="{y(v) + 4}" text-anchor="end">{v:.3g}</text>' for v in (0, top / 2, top)]
    parts += [f'<line class="seam" x1="{x(s)}" x2="{x(s)}" y1="8" y2="{floor}"/>' for s in marks]
    ticks = {i: str(i + 1) for i in sorted({0, (length - 1) // 2, length - 1})} if ticks is None else ticks
    anchors = {length - 1: "end"} if length > 1 else {}
    parts += [
        f'<text x="{x(i)}" y="{_HEIGHT - 6}" text-anchor="{anchors.get(i, "middle")}">{text}</text>'
        for i, text in ticks.items()
    ]
    for name, curve in curves.items():
        points = " ".join(f"{x(i)},{y(value)}" for i, value in enumerate(curve) if value is not None)
        parts.append(f'<polyline class="curve {name}" points="{points}"/>')
    return Markup('<svg class="curves" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("".join(parts))
    )
