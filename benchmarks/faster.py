"""Quality against calls of the UNet on the small model: samplers, noise levels, steps and guidance.

    python benchmarks/faster.py [--scenes 8] [--frames 24] [--student DIR] [--ways WAY ...] [--output FILE]

Every way generates the same videos of people, motions and rooms that neither training nor tuning has seen; they are
scored against the truth, and against what 25 Euler steps make of the same noise. Calls are those for one window, of
each branch of guidance; the FLOPs of denoising are proportional to them.
"""

import argparse
import datetime
import json
import platform
import shlex
import sys
import time
from pathlib import Path

import jax
import numpy as np
from card import small_scores
from card.small_world import WorldPlan
from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.inference.options import PipelineOptions, load_options, with_options
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.atomic_files import write_file

OUTPUT = Path(__file__).resolve().parent / "results" / "faster.json"
SEED = 31415
"""Seed of the scenes; used for nothing else."""

REFERENCE = "euler, 25 steps"
INTERVAL = (0.05, 20.0)
WAYS = {
    REFERENCE: {"num_inference_steps": 25},
    **{f"euler, {steps} steps": {"num_inference_steps": steps} for steps in (12, 8, 6, 4, 3, 2)},
    **{
        f"euler, {steps} steps, no guidance": {"num_inference_steps": steps, "guidance_scale": 1.0}
        for steps in (25, 12, 8, 6, 4, 3)
    },
    **{
        f"euler, {steps} steps, guidance in an interval": {"num_inference_steps": steps, "guidance_interval": INTERVAL}
        for steps in (25, 12, 6)
    },
    **{f"heun, {steps} steps": {"num_inference_steps": steps, "sampler": "heun"} for steps in (6, 4, 3)},
    **{f"dpmpp_2m, {steps} steps": {"num_inference_steps": steps, "sampler": "dpmpp_2m"} for steps in (12, 8, 6, 4, 3)},
    **{f"euler, ays, {steps} steps": {"num_inference_steps": steps, "schedule": "ays"} for steps in (10, 6, 4)},
    **{
        f"dpmpp_2m, ays, {steps} steps": {"num_inference_steps": steps, "sampler": "dpmpp_2m", "schedule": "ays"}
        for steps in (10, 6, 4)
    },
    **{
        f"{sampler}, ays, {steps} steps, no guidance": {
            "num_inference_steps": steps,
            "sampler": sampler,
            "schedule": "ays",
            "guidance_scale": 1.0,
        }
        for sampler in ("euler", "consistency")
        for steps in (4, 2, 1)
    },
}
STUDENT = {f"student, {steps} steps": {"num_inference_steps": steps} for steps in (4, 2, 1)}
"""Ways of a distilled checkpoint (`--student`), whose own options say the rest."""


def main() -> None:
    """Measure all ways, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--student", type=Path, help="distilled checkpoint of the small model, measured as well")
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help="these alone, beside the reference")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    model = checkpoint.read_config(WEIGHTS)
    base, networks = _load(WEIGHTS, model)
    ways = {REFERENCE: WAYS[REFERENCE], **{name: WAYS[name] for name in args.ways or WAYS}}
    todo = [(name, base, networks, changes) for name, changes in ways.items()]
    if args.student:
        todo += [(name, *_load(args.student, model), changes) for name, changes in STUDENT.items()]
    assert base.width is not None
    assert base.height is not None
    cells = (base.height // model.vae.downscale, base.width // model.vae.downscale)
    plan = WorldPlan(base.width, base.height, args.frames, (15.0,), cells, base.draw_style, SEED, split="test")
    scenes = [plan.make(number) for number in range(args.scenes)]
    rows, reference = {}, None
    for name, own, networks, changes in todo:
        options, start = with_options(own, changes), time.perf_counter()
        videos = small_scores.generate(model, networks, scenes, options)
        reference = videos if reference is None else reference
        pairs = zip(videos[:, 1:], reference[:, 1:], strict=True)
        same = average_psnr(np.concatenate([psnr(one, other) for one, other in pairs]))
        rows[name] = {
            "unet_calls": options.unet_calls,
            **small_scores.score(videos, scenes),
            "psnr_to_25_steps": None if name == REFERENCE else round(same, 2),
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(f"{name}: {json.dumps(rows[name])}", flush=True)
        report = {
            "command": shlex.join(["python", "benchmarks/faster.py", *sys.argv[1:]]),
            "machine": f"CPU, {platform.machine()}, python {platform.python_version()}, jax {jax.__version__}",
            "date": datetime.date.today().isoformat(),
            "repeating the reference": small_scores.score(small_scores.repeat_first(scenes), scenes),
            "rows": rows,
        }
        write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())


def _load(path: Path, model: ModelConfig) -> tuple[PipelineOptions, dict[str, nnx.Module]]:
    """Default options and networks of a checkpoint."""
    networks = {name: checkpoint.load_network(path, name, model, "float32") for name in NETWORKS}
    return load_options(path, cls=PipelineOptions), networks


if __name__ == "__main__":
    main()
