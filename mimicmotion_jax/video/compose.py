"""Put videos side by side, with labels: reference, skeleton and result in one picture."""

from collections.abc import Sequence

import numpy as np
from beartype import beartype
from jaxtyping import UInt8, jaxtyped
from PIL import Image, ImageDraw, ImageFont

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import resize

_BACKGROUND = (22, 23, 26)
_TEXT = (226, 228, 232)
# Of the panels' height.
_FONT_SIZE = 0.026
_MIN_FONT_SIZE = 9


@jaxtyped(typechecker=beartype)
def side_by_side(
    panels: Sequence[UInt8[np.ndarray, "..."]],
    height: int | None = None,
    gap: int = 8,
    labels: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Lay panels out in a row on a dark ground, all of one height; sides come out even, as H.264 wants.

    A long video can be composed in pieces: equal sizes give equal layouts.

    Args:
        panels: videos `[n, h, w, 3]` of the same n, or pictures `[h, w, 3]` or `[1, h, w, 3]`, which stand still.
        height: of every panel, pixels; the highest panel's by default. Widths follow.
        gap: between the panels and around them, pixels.
        labels: one short text under each panel.

    Raises:
        InputError: no panels, another shape, different numbers of frames, or not one label per panel.
    """
    videos = [panel[None] if panel.ndim == 3 else panel for panel in panels]
    _check(videos, labels)
    num_frames = max(len(video) for video in videos)
    height = int(max(video.shape[1] for video in videos)) if height is None else height
    widths = [max(1, round(video.shape[2] * height / video.shape[1])) for video in videos]
    lefts = np.cumsum([gap, *(width + gap for width in widths)])

    strip = None if labels is None else _label_strip(labels, widths, lefts, height)
    total_height = gap + height + (gap if strip is None else len(strip))
    total_width = int(lefts[-1])
    output = np.empty((num_frames, total_height + total_height % 2, total_width + total_width % 2, 3), np.uint8)
    output[:] = _BACKGROUND
    for video, left, width in zip(videos, lefts[:-1], widths, strict=True):
        for index, frame in enumerate(video):
            into = output[:, gap : gap + height, left : left + width]
            # A picture is resized once and shown in every frame.
            into[index if len(video) > 1 else slice(None)] = resize(frame, height, width)
    if strip is not None:
        output[:, gap + height : gap + height + len(strip), :total_width] = strip
    return output


def _check(videos: Sequence[np.ndarray], labels: Sequence[str] | None) -> None:
    if not videos:
        raise InputError("there is nothing to put side by side; give at least one panel.")
    for video in videos:
        if video.ndim != 4 or video.shape[-1] != 3 or not video.size:
            raise InputError(f"a panel must be frames [n, h, w, 3] or a picture [h, w, 3], not shape {video.shape}.")
    lengths = sorted({len(video) for video in videos} - {1})
    if len(lengths) > 1:
        raise InputError(f"the panels have {' and '.join(map(str, lengths))} frames; cut them to the same number.")
    if labels is not None and len(labels) != len(videos):
        raise InputError(f"there are {len(labels)} labels for {len(videos)} panels; give one for each.")


def _label_strip(labels: Sequence[str], widths: Sequence[int], lefts: np.ndarray, height: int) -> np.ndarray:
    size = max(_MIN_FONT_SIZE, height * _FONT_SIZE)
    # One size for all, such that the tightest label fits under its panel.
    font = ImageFont.load_default(size)
    fit = min(width / max(1.0, font.getlength(label)) for label, width in zip(labels, widths, strict=True))
    font = ImageFont.load_default(max(_MIN_FONT_SIZE, size * min(1.0, fit)))
    strip = Image.new("RGB", (int(lefts[-1]), round(size * 2.2)), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for label, left, width in zip(labels, lefts[:-1], widths, strict=True):
        draw.text((left + width / 2, strip.height / 2), label, _TEXT, font, anchor="mm")
    return np.asarray(strip)
