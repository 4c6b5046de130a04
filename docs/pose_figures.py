"""Figures of docs/pose.md, of drawn people whose keypoints are known; `python docs/figures.py` draws them."""

import io
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mimicmotion_jax.app.preflight import find_parts
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.render import HAND_EDGES, LIMBS, DrawStyle, draw_pose
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.synthetic.source import detect
from mimicmotion_jax.synthetic.world import Rendered, Scene, render

IMAGES = Path(__file__).parent / "images"
FPS = 15.0
MOMENT = 30  # frame of the motion that `alignment` shows
FACE_CORNERS = (0, 4, 8, 12, 16, 17, 21, 22, 26, 27, 30, 31, 35, 36, 39, 42, 45, 48, 54)
THICK = DrawStyle(antialias=True, stroke_width=4)  # the official strokes are too thin for pictures of this size


def keypoints() -> None:
    """Draw the points of body, hand and face with their numbers."""
    person = render(Scene(33, 5, 15, "full", 420, 560, 1, FPS))
    close = render(Scene(29, 35, 17, "half", 1080, 1440, 1, FPS))
    hand, face = close.keypoints.hands[0, 0, 1], close.keypoints.faces[0, 0]
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), constrained_layout=True, width_ratios=(3, 4, 4))
    _numbered(axes[0], person, person.keypoints.body[0, 0], LIMBS, "body: 18 points")
    _numbered(axes[1], close, hand, HAND_EDGES, "a hand: wrist, then four points per finger", hand)
    _numbered(axes[2], close, face, (), "face: 68 points", face)
    save_figure(figure, "keypoints")


def confidence() -> None:
    """Draw a hand that is seen and one that is hidden, in both styles."""
    styles = [DrawStyle(name, antialias=True, stroke_width=4) for name in ("brightness", "threshold")]
    scene = Scene(29, 45, 17, "half", 300, 400, 60, FPS)
    rendered = render(scene)
    detected = detect(scene, rendered.keypoints)
    rows = [
        [rendered.frames[frame], *(draw_pose(detected, frame, 400, 300, style) for style in styles)]
        for frame in _extremes(detected)
    ]
    figure, axes = plt.subplots(2, 3, figsize=(8, 7.6), layout="constrained")
    show(axes, rows, ["the motion", "confidence=brightness", "confidence=threshold"])
    save_figure(figure, "confidence")


def hands() -> None:
    """Plot the confidence in body and hands over a motion, below moments of it."""
    scene = Scene(29, 45, 17, "half", 240, 320, 75, FPS)
    rendered = render(scene)
    detected = detect(scene, rendered.keypoints)
    moments = (4, 12, 21, 33, 51, 69)
    figure = plt.figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(4, 5))
    strip = [overlay(rendered.frames[i], detected, i) for i in moments]
    show(above.subplots(1, len(moments), squeeze=False), [strip], [f"{i / FPS:.1f} s" for i in moments])
    axis = below.subplots()
    seconds = np.arange(scene.num_frames) / FPS
    parts = find_parts(detected)
    for name, colour in {"body": "#6b7280", "left hand": "#2563eb", "right hand": "#dc2626"}.items():
        axis.plot(seconds, parts[name].confidence, color=colour, lw=1.6, label=name)
        for first, last in parts[name].lost:
            axis.axvspan(first, last, color=colour, alpha=0.12, lw=0)
    axis.axhline(0.3, color="black", lw=0.8, ls=":")
    axis.set(xlabel="seconds", ylabel="mean confidence", ylim=(0, 1.02), xlim=(0, seconds[-1]))
    axis.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, "hands")


def alignment() -> None:
    """Draw one motion fitted to a reference of other proportions, and to one that shows half of the body."""
    motion = demo_motion(MOMENT + 1, FPS, 270, 360)
    drawn = draw_pose(motion, MOMENT, 360, 270, THICK)
    rows = []
    for reference in (Scene(33, 5, 15, "full", 270, 360, 1, FPS), Scene(21, 3, 21, "half", 270, 360, 1, FPS)):
        person = render(reference)
        aligned = [align(motion, person.keypoints, method)[0] for method in ("none", "affine", "limb")]
        shown = [overlay(person.frames[0], points, MOMENT) for points in aligned]
        rows.append([person.frames[0], drawn, *shown])
    figure, axes = plt.subplots(2, 5, figsize=(9, 5.2), layout="constrained")
    show(axes, rows, ["reference", "motion", "align=none", "align=affine", "align=limb"])
    save_figure(figure, "alignment")


def overlay(picture: np.ndarray, points: Keypoints, frame: int, dim: float = 0.45) -> np.ndarray:
    """Lay the skeleton of a frame over a picture [H, W, 3], which is dimmed."""
    height, width = picture.shape[:2]
    return np.maximum((picture * dim).astype(np.uint8), draw_pose(points, frame, height, width, THICK))


def show(axes: np.ndarray, rows: list[list[np.ndarray]], titles: list[str]) -> None:
    """Show rows of pictures [H, W, 3], with titles above the first."""
    for axis, picture in zip(axes.flat, itertools.chain(*rows), strict=True):
        axis.imshow(picture)
        axis.axis("off")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)


def save_figure(figure: Figure, name: str) -> None:
    """Write a figure to images/NAME.webp."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    Image.open(buffer).convert("RGB").save(IMAGES / f"{name}.webp", quality=88, method=6)


def _extremes(detected: Keypoints) -> tuple[int, int]:
    """Frames in which both hands are seen best, and in which the better seen of them is seen worst."""
    scores = detected.hands_score[:, 0].mean(-1)  # [F, 2]
    return int(scores.min(-1).argmax()), int(scores.min(-1).argmin())


def _numbered(
    axis: plt.Axes,
    rendered: Rendered,
    points: np.ndarray,
    edges: tuple[tuple[int, int], ...],
    title: str,
    around: np.ndarray | None = None,
) -> None:
    """Draw points over the first frame, with their numbers; `around` crops the picture to these points."""
    picture = rendered.frames[0]
    height, width = picture.shape[:2]
    axis.imshow((picture * 0.5).astype(np.uint8))
    places = points * (width, height)
    for (a, b), hue in zip(edges, np.linspace(0, 1, max(len(edges), 1), endpoint=False), strict=False):
        axis.plot(*places[[a, b]].T, color=plt.cm.hsv(hue), lw=2)
    axis.scatter(*places.T, s=12, color="white", zorder=3)
    for number, place in enumerate(places):
        if len(places) == 68 and number not in FACE_CORNERS:
            continue
        axis.annotate(str(number), place, (3, 3), textcoords="offset points", fontsize=7, color="white", zorder=4)
    if around is not None:
        low, high = (around.min(0) * (width, height), around.max(0) * (width, height))
        middle, half = (low + high) / 2, 0.62 * max(high - low)
        axis.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] + half, middle[1] - half))
    axis.set_title(title, fontsize=10, loc="left")
    axis.axis("off")
