"""Quality against work on the small model: samplers, noise levels, steps, guidance, kept features, int8, presets.

    python benchmarks/faster.py [--scenes 8] [--frames 24] [--student DIR] [--ways WAY ...] [--again]

Every way generates the same videos of people, motions and rooms that neither training nor tuning has seen; they are
scored against the truth, and against what 25 Euler steps make of the same noise. Calls are those for one window, of
each branch of guidance; one that computes only the last layers counts by its FLOPs. Rows that the file has already are
kept, if they are of as many scenes and frames.
"""

import argparse
import datetime
import functools
import json
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from card import small_scores
from card.packaged import load_small
from card.small_world import WorldPlan

from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.options import PRESETS, with_options
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.quantization import QUANTIZED, quantize_network
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.flops import count_flops

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
    **{
        f"euler, 25 steps, whole every {interval}, else {part}": {
            "num_inference_steps": 25,
            "cache_interval": interval,
            "cache_depth": depth,
        }
        for part, depth in (("the last layer", 1), ("the finest level", 2))
        for interval in (2, 3, 5)
    },
    **{f"preset {name}": PRESETS[name] for name in ("fast", "draft")},
    "euler, 25 steps, int8 weights": {"num_inference_steps": 25},
    "preset fast, int8 weights": PRESETS["fast"],
}
STUDENT = {f"student, {steps} steps": {"num_inference_steps": steps} for steps in (4, 2, 1)}
"""Ways of a distilled checkpoint (`--student`), whose own options say the rest."""

FULL_DEPTH = {1: 1, 2: 3}
"""Layers of the full model's last part, by those of the small model's: one layer, and the finest level."""


@functools.cache
def call_flops(model: ModelConfig, height: int, width: int, depth: int | None) -> float:
    """FLOPs of the UNet for one window, without guidance; with a depth, of its last layers alone."""

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    unet, config, frames = abstract_network("unet", model), model.unet, model.window_size
    vectors = array(1, config.context_dim), array(1, 3)
    conditions = jax.eval_shape(lambda unet, *args: unet.conditions(*args, frames), unet, *vectors)
    pose = array(1, frames, height, width, config.block_out_channels[0])
    inputs = array(1, frames, height, width, config.in_channels), array(1), conditions, pose
    if depth is None:
        return count_flops(lambda unet, *args: unet(*args), unet, *inputs, skip_padding=True)
    deep = jax.eval_shape(lambda unet, *args: unet.predict(*args, depth=depth)[1], unet, *inputs)

    def last(unet: UNet, deep: jax.Array, *args: Any) -> jax.Array:
        return unet.predict(*args, depth=depth, deep=deep)[0]

    return count_flops(last, unet, deep, *inputs, skip_padding=True)


def denoising_flops(options: SamplingConfig, model: ModelConfig, height: int, width: int, depth: int) -> float:
    """FLOPs of the UNet in all steps of one window of latents of this size."""
    whole = call_flops(model, height, width, None)
    if options.cache_interval == 1:
        return options.unet_calls * whole
    part = call_flops(model, height, width, depth)
    return float(np.sum((1 + options.guided_steps) * np.where(options.whole_steps, whole, part)))


def main() -> None:
    """Measure all ways, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--student", type=Path, help="distilled checkpoint of the small model, measured as well")
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help="these alone, beside the reference")
    parser.add_argument("--again", action="store_true", help="measure rows again that the file has already")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    small = load_small()
    model, networks, base, cells = small.model, small.networks, small.options, small.cells
    ways = {REFERENCE: WAYS[REFERENCE], **{name: WAYS[name] for name in args.ways or WAYS}}
    quantized = load_small().networks
    for name in QUANTIZED:
        quantize_network(quantized[name])
    todo = [(name, base, quantized if "int8" in name else networks, changes) for name, changes in ways.items()]
    if args.student:
        student = load_small(args.student)
        if student.model != model:
            parser.error(f"{args.student} has other sizes than the small model; give one that was distilled from it.")
        todo += [(name, student.options, student.networks, changes) for name, changes in STUDENT.items()]
    plan = WorldPlan(*small.size, args.frames, (15.0,), cells, base.draw_style, SEED, split="test")
    scenes = [plan.make(number) for number in range(args.scenes)]
    kind = {"scenes": args.scenes, "frames": args.frames}
    earlier = json.loads(args.output.read_text()) if args.output.exists() and not args.again else {}
    rows, reference = (earlier["rows"] if earlier.items() >= kind.items() else {}), None
    for name, own, networks, changes in todo:
        options, start = with_options(own, changes), time.perf_counter()
        sizes = FULL_DEPTH.get(options.cache_depth, 1), options.cache_depth
        full, small = (
            denoising_flops(options, *where, depth)
            for where, depth in zip(((ModelConfig(), 72, 128), (model, *cells)), sizes, strict=True)
        )
        work = {
            "unet_calls": round(small / call_flops(model, *cells, None), 2),
            "full_size_tflop": round(full / 1e12, 1),
        }
        if name in rows and name != REFERENCE:
            rows[name] |= work
            continue
        videos = small_scores.generate(model, networks, scenes, options)
        reference = videos if reference is None else reference
        pairs = zip(videos[:, 1:], reference[:, 1:], strict=True)
        same = average_psnr(np.concatenate([psnr(one, other) for one, other in pairs]))
        rows[name] = {
            **work,
            **small_scores.score(videos, scenes),
            "psnr_to_25_steps": None if name == REFERENCE else round(same, 2),
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(f"{name}: {json.dumps(rows[name])}", flush=True)
        report = {
            **kind,
            "command": shlex.join(["python", "benchmarks/faster.py", *sys.argv[1:]]),
            "machine": f"CPU, {platform.machine()}, python {platform.python_version()}, jax {jax.__version__}",
            "date": datetime.date.today().isoformat(),
            "repeating the reference": small_scores.score(small_scores.repeat_first(scenes), scenes),
            "rows": rows,
        }
        write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
