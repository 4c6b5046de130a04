"""An adaptive cache (TeaCache, Liu et al. 2024) against fixed noise levels, on the small model at equal work.

    python benchmarks/teacache.py [--scenes 2] [--frames 16] [--output benchmarks/results/teacache.json]

TeaCache leaves a step out while the relative L1 change of the first block's input, summed up since the last one that
was computed, is below a threshold. Where the denoised estimate is what is kept, Euler steps with the same estimate are
one larger step; so the steps that it takes are a schedule, and the threshold is set so that there are 10, 6 or 4.
"""

import argparse
import datetime
import itertools
import json
import platform
from pathlib import Path

import faster
import jax
import jax.numpy as jnp
import numpy as np
from card import small_scores
from card.packaged import load_small
from card.small_world import WorldPlan
from einops import rearrange
from flax import nnx

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.edm import precondition
from mimicmotion_jax.inference.engine import Batch, Engine, Networks
from mimicmotion_jax.inference.options import with_options
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.models.layers import sinusoidal_embedding
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.runtime.atomic_files import write_file

OUTPUT = Path(__file__).resolve().parent / "results" / "teacache.json"
SEED = 777
"""Seed of the scenes."""


@jax.jit
def first_input(unet: UNet, latents: jax.Array, sigma: jax.Array) -> jax.Array:
    """Input of the UNet's first block after its norm, convolution and time embedding, without the reference."""
    c = precondition(sigma)
    sample = jnp.concatenate([c.c_in * latents, jnp.zeros_like(latents)], axis=-1)
    block = unet.down_blocks[0].resnets[0].spatial_res_block
    embedding = unet.time_embedding(sinusoidal_embedding(c.c_noise[None], unet.config.block_out_channels[0]))
    x = rearrange(unet.conv_in(sample), "b f h w c -> (b f) h w c")
    return block.conv1(nnx.silu(block.norm1(x))) + block.time_emb_proj(nnx.silu(embedding))[:, None, None]


def chosen_levels(sigmas: np.ndarray, changes: list[float], steps: int) -> tuple[float, ...]:
    """Noise levels of the steps that are computed, with the least threshold that leaves at most `steps`.

    Args:
        sigmas: of all steps.
        changes: of the input from each step to the next.
        steps: how many at most.
    """

    def levels(threshold: float) -> tuple[float, ...]:
        chosen, total = [0], 0.0
        for step, change in enumerate(changes, 1):
            total += change
            if total > threshold:
                chosen, total = [*chosen, step], 0.0
        return tuple(float(sigmas[step]) for step in chosen)

    sums = np.cumsum(changes)
    thresholds = sorted({float(b - a) for a in (0, *sums) for b in sums if b > a})
    return next(found for threshold in thresholds if len(found := levels(threshold)) <= steps)


def main() -> None:
    """Measure both at each number of steps, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    small = load_small()
    model, networks, base = small.model, small.networks, small.options
    plan = WorldPlan(*small.size, args.frames, (15.0,), small.cells, base.draw_style, SEED, split="test")
    scenes = [plan.make(number) for number in range(args.scenes)]

    full, inputs = with_options(base, faster.WAYS[faster.REFERENCE]), []

    def watch(step: int, timestep: float, latents: jax.Array) -> jax.Array:
        if step + 1 < full.num_steps:
            inputs.append(np.asarray(first_input(networks["unet"], latents, full.sigmas[step + 1])))
        return latents

    batch = Batch(
        images=np.stack([scene["frames"][0] for scene in scenes]),
        poses=[scene["poses"] for scene in scenes],
        seeds=np.arange(len(scenes), dtype=np.uint32),
    )
    mesh = sharding.sampling_mesh(1)
    engine = Engine(model, Networks(**jax.device_put(networks, sharding.replicated(mesh))), mesh)
    latents = engine.denoise(batch, full, watch)
    reference = small_scores.decode(model, networks, latents / model.vae.scaling_factor, full)
    # The callback sees no input of the first step; the second one is always computed.
    changes = [1.0, *(float(np.abs(b - a).mean() / np.abs(a).mean()) for a, b in itertools.pairwise(inputs))]
    rows = {}
    for steps in (10, 6, 4):
        levels = chosen_levels(full.sigmas[:-1], changes, steps)
        ways = {
            f"TeaCache, {len(levels)} of 25 steps": {"schedule": levels},
            f"ays, {len(levels)} steps": {"schedule": "ays", "num_inference_steps": len(levels)},
            f"karras, {len(levels)} steps": {"num_inference_steps": len(levels)},
        }
        for name, options in ways.items():
            videos = small_scores.generate(model, networks, scenes, with_options(base, options))
            pairs = zip(videos[:, 1:], reference[:, 1:], strict=True)
            same = average_psnr(np.concatenate([psnr(one, other) for one, other in pairs]))
            rows[name] = {"psnr_to_25_steps": round(same, 2), **small_scores.score(videos, scenes), **options}
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
    report = {
        "command": f"python benchmarks/teacache.py --scenes {args.scenes} --frames {args.frames}",
        "machine": f"CPU, {platform.machine()}, python {platform.python_version()}, jax {jax.__version__}",
        "date": datetime.date.today().isoformat(),
        "changes": [round(change, 4) for change in changes],
        "rows": rows,
    }
    write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
