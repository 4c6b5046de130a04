"""Draw the figures of the documentation: python docs/figures.py (needs the extra `dev`)."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mimicmotion_jax.data.synthetic.source import detect
from mimicmotion_jax.data.synthetic.world import make_scenes, render
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.demo import demo_motion, demo_reference
from mimicmotion_jax.pose.render import DrawStyle, draw_pose
from mimicmotion_jax.video.compose import side_by_side

IMAGES = Path(__file__).parent / "images"
FRAMES, WINDOW, OVERLAP = 41, 16, 6


def fusion() -> None:
    """How much each window counts for each frame, in the four modes."""
    figure, axes = plt.subplots(4, 1, figsize=(9, 5.6), sharex=True, sharey=True, constrained_layout=True)
    titles = {
        "progressive": "progressive: weights ramp over each overlap (the paper's Algorithm 1)",
        "official": "official: triangular weights (the released code)",
        "uniform": "uniform: every window counts the same (MultiDiffusion)",
        "none": "none: windows side by side",
    }
    for axis, (mode, title) in zip(axes, titles.items(), strict=True):
        plan = make_plan(FRAMES, WINDOW, OVERLAP, mode)
        for i, (frames, weights) in enumerate(zip(plan.indices, plan.weights, strict=True)):
            colour = plt.cm.viridis(i / max(plan.num_windows - 1, 1))
            axis.plot(frames[1:], weights[1:], "o-", color=colour, ms=3.5, lw=1.6)
            axis.fill_between(frames[1:], weights[1:], color=colour, alpha=0.12)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(-0.05, 1.1)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylabel("weight of the window's prediction", loc="top")
    axes[-1].set_xlabel(
        f"frame of the video (frame 0, the reference, is in every window); window {WINDOW}, overlap {OVERLAP}"
    )
    figure.savefig(IMAGES / "fusion.png", dpi=110)


def poses() -> None:
    """A reference, a motion by somebody of other proportions, and the motion fitted to the reference."""
    width, height = 288, 512
    picture, reference = demo_reference(width, height)
    motion = demo_motion(48, 15, width, height)
    style = DrawStyle(antialias=False)
    panels, labels = [picture], ["reference"]
    for method in ("none", "affine", "limb"):
        aligned, _ = align(motion, reference, method)
        drawn = draw_pose(aligned, 30, height, width, style)
        panels.append(np.maximum((picture * 0.35).astype(np.uint8), drawn))
        labels.append(f"align={method}")
    Image.fromarray(side_by_side(panels, labels=labels)[0]).save(IMAGES / "alignment.png", optimize=True)


def world() -> None:
    """People of the synthetic world; below, one of them in motion beside what the simulated detector sees."""
    width, height, columns = 216, 288, 8
    people = [render(scene).frames[0] for scene in make_scenes(columns, 5, "test", width, height, 1)]
    (scene,) = make_scenes(1, 5, "test", width, height, 40)
    rendered = render(scene)
    keypoints = detect(scene, rendered.keypoints)
    moments = range(6, 40, 9)
    below = [
        panel
        for i in moments
        for panel in (rendered.frames[i], draw_pose(keypoints, i, height, width, DrawStyle(antialias=True)))
    ]
    rows = [np.concatenate(panels, axis=1) for panels in (people, below)]
    Image.fromarray(np.concatenate(rows)).quantize(256).save(IMAGES / "world.png", optimize=True)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    fusion()
    poses()
    world()
