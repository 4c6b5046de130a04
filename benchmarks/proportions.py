"""A person's motion on cartoons and animals, by each way to align it (paper, appendix D).

    python benchmarks/proportions.py [--motions 5 7] [--output benchmarks/results/proportions.json]

The drawn world renders eight characters with large heads, short legs or paws while they do what a person does. The
reference is their first frame, the motion is the person's, as a detector sees it; the truth is known for skeletons and
for frames. Skeletons are compared in percent of the picture's height; scores of frames are plain means over frames.
"""

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mimicmotion_jax import MimicMotionPipeline
from mimicmotion_jax.evaluation.protocols import get_protocol
from mimicmotion_jax.metrics.frames import psnr, ssim
from mimicmotion_jax.metrics.silhouette import foreground, intersection_over_union
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.synthetic.cast import CARTOONS
from mimicmotion_jax.synthetic.source import detect
from mimicmotion_jax.synthetic.world import Rendered, Scene, render

ROOT = Path(__file__).resolve().parent.parent
OUTPUT, PICTURE = ROOT / "benchmarks/results/proportions.json", ROOT / "docs/images/proportions.webp"
METHODS = ("none", "affine", "limb")
FRAMES, FPS = 15, 7.5
SHOWN = 11  # frame in the picture


def scenes(character: int, motion: int, width: int, height: int) -> tuple[Rendered, Keypoints, Keypoints]:
    """Render a cartoon, and detect its pose in the first frame and the motion of the person who shows it."""
    style = ("full", width, height, FRAMES + 1, FPS)
    scene = Scene(character, motion, 2 * character + 1, *style, cast="cartoons")
    person = Scene(2 * character + 101, motion, 5, *style)
    truth = render(scene)
    return truth, detect(scene, truth.keypoints)[:1], detect(person, render(person).keypoints)[1:]


def joint_error(found: Keypoints, truth: Keypoints) -> float:
    """Mean distance of body joints that are seen in both, in percent of the picture's height."""
    seen = (found.body_score > 0.3) & (truth.body_score > 0)
    size = np.array([truth.width / truth.height, 1.0])
    return float(100 * np.linalg.norm((found.body - truth.body) * size, axis=-1)[seen].mean())


def score(frames: np.ndarray, truth: Rendered) -> dict[str, float]:
    """Mean scores of generated frames."""
    threshold = get_protocol("synthetic").foreground_threshold
    people = [foreground(pixels, truth.background, threshold) for pixels in (frames, truth.frames[1:])]
    found = {"psnr": psnr(frames, truth.frames[1:]), "ssim": ssim(frames, truth.frames[1:])}
    return {name: float(np.mean(value)) for name, value in found.items()} | {
        "foreground_iou": float(intersection_over_union(*people).mean())
    }


def main() -> None:
    """Measure, draw and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--motions", type=int, nargs="+", default=[5, 7, 9, 13], metavar="N", help="default: 5 7 9 13")
    add("--generated", type=int, default=1, metavar="N", help="of how many motions frames are made; default: 1")
    add("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    add("--picture", type=Path, default=PICTURE, help="default: %(default)s")
    args = parser.parse_args()
    enable_compilation_cache()
    pipe = MimicMotionPipeline.from_pretrained("small", num_devices=1)
    rows: list[dict[str, Any]] = []
    pictures: list[np.ndarray] = []
    for number in tqdm(range(len(CARTOONS) * len(args.motions)), unit="character"):
        character, turn = number % len(CARTOONS), number // len(CARTOONS)
        truth, reference, person = scenes(
            character, args.motions[turn], pipe.defaults["width"], pipe.defaults["height"]
        )
        panels = [truth.frames[0]]
        for method in METHODS:
            fitted, _ = align(person, reference, method)
            row = {"character": character, "motion": args.motions[turn], "align": method}
            rows.append(row | {"joint_error": joint_error(fitted, truth.keypoints[1:])})
            if turn < args.generated:
                options = {"align": method, "gaps": "dark", "progress": False}
                video = pipe(truth.frames[0], person, image_pose=reference, **options)
                frames = np.round(video.frames * 255).astype(np.uint8)
                rows[-1] |= score(frames, truth)
                panels += [video.prepared.poses[SHOWN : SHOWN + 1][0], frames[SHOWN - 1]]
        if number < len(CARTOONS):
            pictures.append(np.concatenate([*panels, truth.frames[SHOWN]], axis=1))
    report = {
        "command": f"python benchmarks/proportions.py --motions {' '.join(map(str, args.motions))}",
        "machine": f"CPU, {platform.machine()}, python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
        "means": {method: means([row for row in rows if row["align"] == method]) for method in METHODS},
        "rows": [{name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()} for row in rows],
    }
    print(json.dumps(report["means"], indent=1))
    write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())
    Image.fromarray(np.concatenate(pictures)).save(args.picture, quality=80, method=6)


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means of all scores."""
    columns = ("joint_error", "psnr", "ssim", "foreground_iou")
    return {name: round(float(np.mean([row[name] for row in rows if name in row])), 4) for name in columns}


if __name__ == "__main__":
    main()
