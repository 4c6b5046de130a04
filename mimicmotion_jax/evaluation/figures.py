"""Figures of a sequence for the page: videos side by side as MP4, curves as SVG, y-t slices as PNG."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
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
