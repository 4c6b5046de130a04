"""Fusion of windows with the small model: the rows of the paper's table 2 that need no training, and figures 5 and 9.

    python benchmarks/fusion.py [--scenes 6] [--seeds 0 1 2]

Generates the same videos with progressive fusion, with uniform weights and without, several windows long, of people,
motions and rooms that nothing else uses, from poses with the detector's mistakes of the paper's figure 7. Writes the
scores to benchmarks/results/fusion.json, and the pictures, of the first seed, to docs/images. Rows that the file has
already are kept, if they are of as many scenes and frames; pictures are drawn by a run that makes all of that seed.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import shlex
import sys
from pathlib import Path

import numpy as np
from card import small_scores
from card.ablation_pictures import differences_plot, slices_strip
from card.ablation_scores import score
from card.ablation_table import FULL, VARIANTS
from card.ablation_world import FIGURE_7, AblationPlan
from card.packaged import load_small
from card.small_files import write_picture

from mimicmotion_jax.diffusion.fusion import plan_seams
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache

ROOT = Path(__file__).resolve().parent.parent
WORLD_SEED = 20261130
"""Seed of the scenes; used for nothing else."""

MODES = {name: variant.fusion for name, variant in VARIANTS.items() if all(variant.ticks[:2])}


def main() -> None:
    """Make the missing rows, and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=6, metavar="N", help="default: 6")
    parser.add_argument("--frames", type=int, default=36, metavar="N", help="of each, the reference's included")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="default: 0 1 2")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "fusion.json", metavar="FILE")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "images", metavar="DIR")
    args = parser.parse_args()

    enable_compilation_cache()
    small = load_small()
    world = *small.size, args.frames, (15.0,), small.cells, small.options.draw_style, WORLD_SEED
    plan = AblationPlan(*world, split="test", detector=FIGURE_7, movement="free")
    scenes = [plan.make(number) for number in range(args.scenes)]
    repeated = score(small_scores.repeat_first(scenes), scenes)
    kind = {"scenes": args.scenes, "frames": args.frames}
    earlier = json.loads(args.output.read_text()) if args.output.exists() else {}
    rows = earlier["rows"] if earlier.items() >= kind.items() else {}
    windows = {name: dataclasses.replace(small.options, fusion=mode) for name, mode in MODES.items()}
    plans = {name: those.plan(args.frames, small.model.window_size) for name, those in windows.items()}
    shown: dict[str, np.ndarray] = {}
    for seed in args.seeds:
        for name in MODES:
            key = f"{name}, seed {seed}"
            if key in rows:
                continue
            videos = small_scores.generate(small.model, small.networks, scenes, windows[name], seed)
            rows[key] = {"name": name, "seed": seed, "scores": score(videos, scenes, plans[name])}
            print(f"{key}: {json.dumps(rows[key]['scores'])}", flush=True)
            if seed == args.seeds[0]:
                shown[name] = videos
            report = {
                **kind,
                "command": shlex.join(["python", "benchmarks/fusion.py", *sys.argv[1:]]),
                "machine": f"CPU, {platform.machine()}, python {platform.python_version()}",
                "date": datetime.date.today().isoformat(),
                "windows": plans[FULL.name].num_windows,
                "mistaken": float(np.mean([scene["mistaken"] for scene in scenes])),
                "repeating the reference": repeated,
                "rows": rows,
            }
            write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())
    if shown.keys() == MODES.keys():
        seams = {name: plan_seams(plans[name], args.frames) for name in MODES}
        curves = {name: videos[0] for name, videos in shown.items()}
        write_picture(args.pictures / "fusion_differences.png", differences_plot(scenes[0]["frames"], curves, seams))
        write_picture(args.pictures / "fusion_seams.png", slices_strip(scenes, shown, most=2))


if __name__ == "__main__":
    main()
