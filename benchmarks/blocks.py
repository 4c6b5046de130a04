"""Time estimates of the networks' blocks at full size, without a chip; half a minute per block, less for GPUs.

    python benchmarks/blocks.py [--chip v5e|h100] [--blocks "UNet transformer, 72x128"] [--output FILE.json]

One chip, bfloat16, a window of 16 frames with both branches of guidance, 8 frames in the VAE. For each block on a TPU:
the compiler's estimate in million cycles, without the attention kernel; on a GPU: a lower bound in microseconds, each
kernel at the card's peak FLOP/s or memory bandwidth, whichever takes longer. Also the time of the FLOPs alone at the
chip's peak, and the most expensive primitives or kinds of work. Use it to choose between two ways to write a layer.
"""

import argparse
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mimicmotion_jax.models.blocks import SpatioTemporalResBlock
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.models.transformer import SpatioTemporalTransformer
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.hardware import peak_flops
from mimicmotion_jax.sharding import TPU_PART_SIZE
from mimicmotion_jax.xla_report import compile_report, topology_devices

RESULTS = Path(__file__).resolve().parent / "results"
CYCLE_FLOPS = 2 * 4 * 128 * 128  # per cycle of a v5e with four matrix units; 197 TFLOP/s at 1.5 GHz
TOPOLOGIES = {"v5e": "v5e:1x1", "h100": "h100:1"}
UNITS = {"v5e": "Mcycles", "h100": "us"}
EMBEDDING, CONTEXT = 1280, 1024

Block = tuple[Callable[[Init], nnx.Module], list[tuple[int, ...]]]


class Transformer(nnx.Module):
    """A transformer of the UNet that computes its constants as well."""

    def __init__(self, init: Init, channels: int):
        self.transformer = SpatioTemporalTransformer(init, channels, channels // 64, 1, CONTEXT)

    def __call__(self, x: jax.Array, context: jax.Array, execution: Execution) -> jax.Array:
        return self.transformer(x, self.transformer.conditions(context, x.shape[1]), execution)


def unet_resnet(channels: int, height: int, width: int) -> Block:
    """Residual block of the UNet."""
    return (
        lambda init: SpatioTemporalResBlock(init, channels, channels, EMBEDDING, 1e-6),
        [(2, 16, height, width, channels), (2, EMBEDDING)],
    )


def unet_transformer(channels: int, height: int, width: int) -> Block:
    """Transformer of the UNet."""
    return lambda init: Transformer(init, channels), [(2, 16, height, width, channels), (2, CONTEXT)]


def vae_resnet(channels: int, height: int, width: int) -> Block:
    """Residual block of the VAE decoder."""
    return (
        lambda init: SpatioTemporalResBlock(init, channels, channels, None, 1e-6, 1e-5),
        [(1, 8, height, width, channels)],
    )


BLOCKS: dict[str, Block] = {
    "UNet residual block, 72x128": unet_resnet(320, 72, 128),
    "UNet residual block, 36x64": unet_resnet(640, 36, 64),
    "UNet residual block, 18x32": unet_resnet(1280, 18, 32),
    "UNet transformer, 72x128": unet_transformer(320, 72, 128),
    "UNet transformer, 36x64": unet_transformer(640, 36, 64),
    "UNet transformer, 18x32": unet_transformer(1280, 18, 32),
    "VAE residual block, 144x256": vae_resnet(512, 144, 256),
    "VAE residual block, 576x1024": vae_resnet(128, 576, 1024),
}


def measure(block: Block, chip: str) -> dict[str, Any]:
    """Compile a block; return its estimates."""
    build, shapes = block
    mesh = Mesh(np.array(topology_devices(TOPOLOGIES[chip])), ("chip",))
    execution = Execution(platform="cuda", cudnn_attention=True, fused_geglu=True)
    if chip == "v5e":
        execution = Execution(platform="tpu", part_size=TPU_PART_SIZE)
    if len(shapes) == 1:  # the VAE's
        execution = Execution(platform=execution.platform)
    here = NamedSharding(mesh, PartitionSpec())
    graph, params = nnx.split(nnx.eval_shape(lambda: build(Init(nnx.Rngs(0), jnp.bfloat16))))
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), params)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=here) for shape in shapes]

    def run(params: nnx.State, *inputs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(*inputs, execution=execution)

    # The TPU compiler has no estimate for the attention kernel, so its FLOPs are left out there as well.
    known = {"kernel_flops": {}} if chip == "v5e" else {}
    report = compile_report(jax.jit(run).lower(params, *inputs), mesh, **known)
    if chip == "v5e":
        unit, costs, peak = 1e6, report.estimated_cycles, CYCLE_FLOPS
    else:
        unit, costs, peak = 1e-6, report.least_seconds, peak_flops(report.device_kind)
    return {
        UNITS[chip]: round(sum(costs.values()) / unit, 1),
        "products": round(report.flops_per_chip / peak / unit, 1),
        "dearest": {name: round(cost / unit, 1) for name, cost in list(costs.items())[:4]},
    }


def main() -> None:
    """Compile all blocks, print and write the estimates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=TOPOLOGIES, default="v5e", help="default: v5e")
    parser.add_argument(
        "--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS), metavar="NAME", help="default: all"
    )
    parser.add_argument(
        "--output", type=Path, help="file for the results (default: benchmarks/results/blocks_CHIP.json)"
    )
    args = parser.parse_args()
    rows = {}
    for name in args.blocks:
        start = time.perf_counter()
        rows[name] = measure(BLOCKS[name], args.chip)
        print(f"{name}: {json.dumps(rows[name])} ({time.perf_counter() - start:.0f} s)", flush=True)
    report = {
        "command": f"python benchmarks/blocks.py --chip {args.chip}",
        "chip": f"{args.chip}, by its compiler",
        "date": datetime.date.today().isoformat(),
        "blocks": rows,
    }
    output = args.output or RESULTS / f"blocks_{args.chip}.json"
    write_file(output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
