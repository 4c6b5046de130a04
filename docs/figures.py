"""Draw the figures of the documentation: python docs/figures.py [NAME …] (needs the extra `dev`)."""

import argparse
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from pose_figures import IMAGES, alignment, confidence, hands, keypoints, save_figure

from mimicmotion_jax import MimicMotionPipeline
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.pose.render import DrawStyle, draw_pose
from mimicmotion_jax.synthetic.source import detect
from mimicmotion_jax.synthetic.world import Scene, make_scenes, render

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
CARD = RESULTS / "gpu" / "nvidia-h100-80gb-hbm3-full"
FRAMES, WINDOW, OVERLAP, CHUNK = 41, 16, 6, 8
WIDTH, HEIGHT = 192, 256  # of the small model


def fusion() -> None:
    """Plot the weight of each window for each frame, in the four modes of fusion."""
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


def windows() -> None:
    """Draw the frames of each window, and of each chunk that is decoded, as bars."""
    figure, axis = plt.subplots(figsize=(9, 3.6), constrained_layout=True)
    denoised = make_plan(FRAMES, WINDOW, OVERLAP)
    decoded = make_plan(FRAMES, CHUNK, CHUNK // 4, reference_slot=False)
    for row, frames in enumerate(denoised.indices):
        axis.barh(-row, 1, left=-0.5, color="#d97706", height=0.7)
        axis.barh(-row, len(frames) - 1, left=frames[1] - 0.5, color=plt.cm.viridis(row / 3), height=0.7, alpha=0.85)
        axis.text(frames[1], -row, f"window {row + 1}", va="center", color="white" if row < 3 else "black", fontsize=9)
    below = -denoised.num_windows - 0.5
    for number, frames in enumerate(decoded.indices):
        row = below - 0.8 * (number % 2)
        axis.barh(row, len(frames), left=frames[0] - 0.5, color="#6b7280", height=0.7, alpha=0.85)
        axis.text(frames[0], row, f"chunk {number + 1}", va="center", color="white", fontsize=9)
    axis.set_yticks([-1.5, below - 0.4], ["denoised in\nevery step", "decoded\nat the end"])
    axis.set(xlim=(-1, FRAMES), xlabel=f"frame; 0 (orange) is the reference. Window {WINDOW}, overlap {OVERLAP}")
    axis.tick_params(left=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
    save_figure(figure, "windows")


def world() -> None:
    """Draw people of the synthetic world; below, one of them in motion beside what the simulated detector sees."""
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


def world_free() -> None:
    """Draw people of the synthetic world who turn their backs, a row each."""
    rows = []
    for numbers, framing in (((14, 5, 8), "half"), ((9, 10, 8), "half"), ((6, 10, 8), "full")):
        frames = render(Scene(*numbers, framing, 144, 192, 8, 1.4, "free")).frames
        rows.append(np.concatenate(list(frames), axis=1))
    Image.fromarray(np.concatenate(rows)).save(IMAGES / "world_free.webp", quality=70, method=6)


def small_model() -> None:
    """Draw results of the small model on people and motions that it has never seen, beside the truth."""
    pipe = MimicMotionPipeline.from_pretrained(WEIGHTS)
    moments = (7, 19, 31)
    rows = []
    for scene in (make_scenes(8, 1234, "test", WIDTH, HEIGHT, 32, movement="free")[i] for i in (0, 4, 6)):
        truth = render(scene)
        detected = detect(scene, truth.keypoints)
        video = pipe(truth.frames[0], detected[1:], image_pose=detected[:1], align="none", gaps="dark", progress=False)
        poses, generated = video.prepared.poses, to_uint8(video.frames)
        panels = [x for i in moments for x in (poses[i : i + 1][0], generated[i - 1], truth.frames[i])]
        rows.append(np.concatenate([truth.frames[0], *panels], axis=1))
    Image.fromarray(np.concatenate(rows)).save(IMAGES / "small_model.webp", quality=85, method=6)


def demo() -> None:
    """Animate two people who move as others do: reference, skeleton and result of the small model."""
    pipe = MimicMotionPipeline.from_pretrained(WEIGHTS)
    strips = []
    # Odd numbers are those of the test split: nobody and nothing here occurs in training.
    for who, how in (((21, 3, 21), (7, 7, 9)), ((15, 9, 7), (13, 1, 5))):
        look, driver = (Scene(*numbers, "half", WIDTH, HEIGHT, n, 15) for numbers, n in ((who, 1), (how, 45)))
        person = render(look)
        motion = detect(driver, render(driver).keypoints)
        video = pipe(person.frames[0], motion, image_pose=person.keypoints, align="limb", progress=False)
        poses = video.prepared.poses[1:]
        strips += [np.broadcast_to(person.frames[0], poses.shape), poses, to_uint8(video.frames)]
    first, *others = map(Image.fromarray, np.concatenate(strips, axis=2))
    first.save(IMAGES / "demo.webp", save_all=True, append_images=others, duration=67, loop=0, quality=80, method=6)


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Convert frames in [0, 1] to pixels."""
    return np.round(frames * 255).astype(np.uint8)


def small_training() -> None:
    """Plot the training of the small model."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    vae, unet = (
        json.loads((CARD / f"{name}.json").read_text())["parts"] for name in ("small-model_first", "small-model")
    )
    curves = (vae["vae"]["history"][:-1], [line for line in unet["train"]["unet"]["history"] if "frames_per_s" in line])
    for axis, title, lines in zip(axes, ("VAE", "UNet and PoseNet, two cycles"), curves, strict=True):
        begin, seconds = 0.0, []
        for before, line in zip([{}, *lines], lines, strict=False):
            if line.get("cycle", 1) > before.get("cycle", 1):
                begin = seconds[-1]
            seconds.append(begin + line["second"])
        axis.plot(seconds, [line["loss"] for line in lines], lw=1.2)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set(xlabel="seconds on an H100", ylabel="loss", yscale="log")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "small_training.png", dpi=110)


def performance() -> None:
    """Plot speed against PyTorch, memory on TPUs and GPUs, time and memory against the length of a video."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 6.5), constrained_layout=True, width_ratios=(2, 3, 2))
    for name, offset in (("versus_torch_cpu_2026-11-23", -0.2), ("versus_torch_cpu", 0.2)):
        results = json.loads((RESULTS / f"{name}.json").read_text())
        places = [place + offset for place in range(len(results["parts"]))]
        ratios = [part["ratio"] for part in results["parts"].values()]
        bars = axes[0].bar(places, ratios, width=0.38, label=results["date"])
        axes[0].bar_label(bars, fmt="%.2f", fontsize=7, label_type="center", color="white")
    axes[0].set_xticks(range(len(results["parts"])), list(results["parts"]), fontsize=8)
    axes[0].axhline(1, color="black", lw=0.8)
    axes[0].legend(frameon=False, fontsize=7)
    axes[0].set_title("Speed over PyTorch's, two CPU cores", loc="left", fontsize=10)

    reports = {
        path.stem: json.loads(path.read_text())["report"] for path in sorted((RESULTS / "compiled").glob("*.json"))
    }
    programs = [
        (f"{name.removeprefix('sample-')}: {label}", report[key]["memory_needed"] / report[key]["memory_limit"])
        for name, report in reports.items()
        for key, label in (("denoising", "denoising"), ("decoding", "decoding"), ("train_step", "step"))
        # Each chip decodes by itself: once per kind is enough.
        if key in report and (key != "decoding" or re.fullmatch(r"sample-\w+-1", name))
    ]
    bars = axes[1].barh([name for name, _ in programs], [100 * share for _, share in programs], height=0.6)
    axes[1].bar_label(bars, fmt="%.0f %%", fontsize=8)
    axes[1].axvline(100, color="black", lw=0.8)
    axes[1].invert_yaxis()
    axes[1].tick_params(axis="y", labelsize=8)
    axes[1].set_title("Memory of a chip, full size", loc="left", fontsize=10)

    rows = json.loads((RESULTS / "length.json").read_text())["rows"]
    frames = [row["frames"] for row in rows]
    axes[2].plot(frames, [row["ms_per_frame"] for row in rows], "o-", ms=3.5, label="ms per frame")
    axes[2].plot(frames, [row["peak_MiB"] for row in rows], "s--", ms=3.5, label="MiB at the peak")
    axes[2].set(xscale="log", yscale="log", xlabel="frames")
    axes[2].legend(frameon=False, fontsize=8)
    axes[2].set_title("First small model, two CPU cores", loc="left", fontsize=10)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "performance.png", dpi=110)


def faster() -> None:
    """Plot quality against calls of the UNet, for each sampler, schedule and kind of guidance."""
    report = json.loads((RESULTS / "faster.json").read_text())
    families: dict[str, list[tuple[int, float, float | None]]] = {}
    calls = {name: row for name, row in report["rows"].items() if "int8" not in name}  # it saves memory, not calls
    for name, row in calls.items():
        family = re.sub(r", \d+ steps| every \d+|(?<=preset) \w+", "", name)
        families.setdefault(family, []).append((row["unet_calls"], row["psnr"], row["psnr_to_25_steps"]))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), constrained_layout=True)
    for number, (family, points) in enumerate(families.items()):
        for axis, column in zip(axes, (1, 2), strict=True):
            shown = sorted((point[0], point[column]) for point in points if point[column] is not None)
            style = "*" if family == "preset" else "os^vDPX"[number % 7] + "-"
            axis.plot(*zip(*shown, strict=True), style, ms=11 if style == "*" else 5, lw=1, label=family)
    for axis, label in zip(axes, ("against the truth", "against 25 steps"), strict=True):
        axis.set_xscale("log")
        axis.set_xticks(ticks := [3, 6, 12, 25, 50], [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("calls of the UNet for one window")
        axis.set_ylabel(f"PSNR {label}, dB")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(18, 20.2)  # heun is below
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(IMAGES / "faster.png", dpi=100)


def main() -> None:
    """Draw the figures that are named, or all."""
    drawn = (
        *(demo, keypoints, confidence, hands, alignment, windows, fusion, world, world_free),
        *(small_training, small_model, performance, faster),
    )
    figures = {draw.__name__: draw for draw in drawn}
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python docs/figures.py fusion performance")
    # argparse (Python 3.11) refuses the default of a positional that is "*" and has choices.
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(figures)}")
    names = parser.parse_args().names
    if unknown := set(names) - set(figures):
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; choose among {', '.join(figures)}")
    IMAGES.mkdir(exist_ok=True)
    for name in names or figures:
        figures[name]()


if __name__ == "__main__":
    main()
