"""Figures of a sequence for the page: videos side by side as MP4, curves as SVG, y-t slices as PNG."""

import base64
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mimicmotion_jax.evaluation.comparison import GENERATED, TRUE, Comparison
from mimicmotion_jax.evaluation.records import read_record, sha256_json, write_record
from mimicmotion_jax.metrics import yt_slice
from mimicmotion_jax.pose.render import DrawStyle, draw_poses
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.image import resize

_PANEL_HEIGHT = 288  # pixels
_CRF = 23
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 150, 46, 22  # plot size and margins, in SVG units


def panel_labels(comparison: Comparison) -> list[str]:
    """Labels of the panels of `write_panels`, from the left."""
    return ["reference", *(["pose"] if comparison.poses is not None else []), "generated", "true"]


def write_panels(
    path: Path,
    comparison: Comparison,
    generated: UInt8[np.ndarray, "f h w 3"],
    true: UInt8[np.ndarray, "f h w 3"],
    style: DrawStyle,
) -> None:
    """Write reference, pose, generated and true video side by side as one MP4; a current file is kept."""
    record = path.with_name(path.name + ".json")
    shown = comparison.poses
    drawn = None if shown is None else [shown.fps, shown.body.tobytes().hex(), shown.body_score.tobytes().hex()]
    key = sha256_json([comparison.identity(TRUE), comparison.identity(GENERATED), drawn, _PANEL_HEIGHT, _CRF])
    if path.is_file() and read_record(record, key):
        return
    height, style = _PANEL_HEIGHT, dataclasses.replace(style, antialias=True)  # keeps thin strokes visible
    width = max(2, round(true.shape[2] * height / true.shape[1]))
    reference = resize(comparison.reference(), height, width)
    fps = comparison.sequence.reader.fps if shown is None else shown.fps
    record.unlink(missing_ok=True)
    with open_writer(path, fps, width * len(panel_labels(comparison)), height, crf=_CRF) as writer:
        for index, pair in enumerate(zip(generated, true, strict=True)):
            poses = [] if shown is None else [draw_poses(shown, height, width, index + 1, index + 2, style)[0]]
            writer.write(np.hstack([reference, *poses, *(resize(frame, height, width) for frame in pair)]))
    write_record(record, key, {"frames": len(true)})


def video_element(path: Path) -> str:
    """Return a `<video>` element with the file embedded."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<video controls loop muted autoplay playsinline src="data:video/mp4;base64,{content}"></video>'


def slice_element(frames: UInt8[np.ndarray, "f h w 3"], seams: Sequence[int], label: str) -> str:
    """Return the middle column of the frames over time as an `<img>`, with a mark above every seam."""
    file = io.BytesIO()
    Image.fromarray(yt_slice(frames, frames.shape[2] // 2)).save(file, "PNG", optimize=True)
    content = base64.b64encode(file.getvalue()).decode()
    marks = "".join(f'<line x1="{seam}" x2="{seam}" y1="0" y2="1"/>' for seam in seams)
    return (
        f'<figure class="slice"><svg class="marks" viewBox="0 0 {len(frames)} 1" preserveAspectRatio="none" '
        f'aria-hidden="true">{marks}</svg><img alt="y-t slice, {html.escape(label)}" '
        f'src="data:image/png;base64,{content}"><figcaption>{html.escape(label)}</figcaption></figure>'
    )


def curves_element(curves: Mapping[str, Sequence[float | None]], seams: Sequence[int], label: str) -> str:
    """Return curves over the frames as an `<svg>`, with a line at every seam."""
    length = max(len(curve) for curve in curves.values())
    top = max([value for curve in curves.values() for value in curve if value is not None] or [0]) or 1
    right, floor = _WIDTH - 12, _HEIGHT - _BOTTOM

    def x(index: float) -> float:
        return round(_LEFT + (right - _LEFT) * index / max(length - 1, 1), 2)

    def y(value: float) -> float:
        return round(floor - (floor - 8) * value / top, 2)

    parts = [f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y(v)}" y2="{y(v)}"/>' for v in (0, top / 2, top)]
    parts += [f'<text x="{_LEFT - 6}" y="{y(v) + 4}" text-anchor="end">{v:.3g}</text>' for v in (0, top / 2, top)]
    # The difference across the seam before frame k has index k - 1.
    parts += [f'<line class="seam" x1="{x(s - 1)}" x2="{x(s - 1)}" y1="8" y2="{floor}"/>' for s in seams]
    ticks = sorted({0, (length - 1) // 2, length - 1})
    parts += [f'<text x="{x(i)}" y="{_HEIGHT - 6}" text-anchor="middle">{i + 1}</text>' for i in ticks]
    for name, curve in curves.items():
        points = " ".join(f"{x(i)},{y(value)}" for i, value in enumerate(curve) if value is not None)
        parts.append(f'<polyline class="curve {name}" points="{points}"/>')
    return (
        f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
