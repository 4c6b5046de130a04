"""Time estimates of the networks' blocks at full size, without a chip; half a minute per block, less for GPUs.

    python benchmarks/blocks.py [--chip v5e|h100] [--blocks "UNet transformer, 72x128"] [--output FILE.json]
    python benchmarks/blocks.py --training --fast-memory 16 8 --blocks "UNet residual block, 36x64"

One chip, bfloat16, a window of 16 frames with both branches of guidance, 8 frames in the VAE. For each block on a TPU:
the compiler's estimate in million cycles, without the attention kernel; on a GPU: a lower bound in microseconds, each
kernel at the card's peak FLOP/s or memory bandwidth, whichever takes longer. Also the time of the FLOPs alone at the
chip's peak, and the most expensive primitives or kinds of work. Use it to choose between two ways to write a layer.
With `--training` a block of the UNet runs forwards and backwards, recomputed, on one window. `--fast-memory` lets each
kernel use that much of a TPU's fast memory, which decides how long the compiler takes.
"""

import argparse
import dataclasses
import datetime
import itertools
import json
import shlex
import sys
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


def lower(block: Block, mesh: Mesh, chip: str, *, training: bool) -> jax.stages.Lowered:
    """Trace a block as sampling runs it, or forwards and backwards as training does."""
    build, shapes = block
    execution = Execution(platform="cuda", cudnn_attention=True, fused_geglu=not training)
    if chip == "v5e":
        execution = Execution(platform="tpu", part_size=None if training else TPU_PART_SIZE)
    if len(shapes) == 1:  # the VAE's
        execution = Execution(platform=execution.platform)
    if training:
        execution = dataclasses.replace(execution, remat=True)
        shapes = [(1, *shape[1:]) for shape in shapes]
    here = NamedSharding(mesh, PartitionSpec())
    graph, params = nnx.split(nnx.eval_shape(lambda: build(Init(nnx.Rngs(0), jnp.bfloat16))))
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), params)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=here) for shape in shapes]

    def run(params: nnx.State, *inputs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(*inputs, execution=execution)

    def train(params: nnx.State, x: jax.Array, *others: jax.Array) -> Any:
        recomputed = execution.checkpoint(lambda params, x: run(params, x, *others))
        out, backward = jax.vjp(recomputed, params, x)
        return backward(out)

    return jax.jit(train if training else run).lower(params, *inputs)


def measure(block: Block, chip: str, *, training: bool = False, fast_memory: int | None = None) -> dict[str, Any]:
    """Compile a block; return its estimates and, for training, how long the compiler took."""
    mesh = Mesh(np.array(topology_devices(TOPOLOGIES[chip])), ("chip",))
    # The TPU compiler has no estimate for the attention kernel, so its FLOPs are left out there as well.
    known: dict[str, Any] = {"kernel_flops": {}} if chip == "v5e" else {}
    if fast_memory is not None:
        known["compiler_options"] = {
            "xla_tpu_scoped_vmem_limit_kib": str(1024 * fast_memory),
            "xla_tpu_enable_tpu_custom_call_scoped_vmem_adjustments": "true",  # for the attention kernel
        }
    report = compile_report(lower(block, mesh, chip, training=training), mesh, **known)
    if chip == "v5e":
        unit, costs, peak = 1e6, report.estimated_cycles, CYCLE_FLOPS
    else:
        unit, costs, peak = 1e-6, report.least_seconds, peak_flops(report.device_kind)
    return {
        UNITS[chip]: round(sum(costs.values()) / unit, 1),
        "products": round(report.flops_per_chip / peak / unit, 1),
        "dearest": {name: round(cost / unit, 1) for name, cost in list(costs.items())[:4]},
    } | ({"compiled_s": round(report.compile_seconds)} if training else {})


def main() -> None:
    """Compile all blocks, print and write the estimates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=TOPOLOGIES, default="v5e", help="default: v5e")
    parser.add_argument(
        "--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS), metavar="NAME", help="default: all"
    )
    parser.add_argument("--training", action="store_true", help="forwards and backwards, as training runs it")
    parser.add_argument(
        "--fast-memory",
        type=int,
        nargs="+",
        metavar="MB",
        help="of a TPU, that a kernel may use (default: the compiler's, 16)",
    )
    parser.add_argument(
        "--output", type=Path, help="default: benchmarks/results/blocks_CHIP.json, or blocks_CHIP_training.json"
    )
    args = parser.parse_args()
    rows = {}
    for name, limit in itertools.product(args.blocks, args.fast_memory or [None]):
        start = time.perf_counter()
        row = name if limit is None else f"{name}, {limit} MB"
        rows[row] = measure(BLOCKS[name], args.chip, training=args.training, fast_memory=limit)
        print(f"{row}: {json.dumps(rows[row])} ({time.perf_counter() - start:.0f} s)", flush=True)
    report = {
        "command": shlex.join(["python", "benchmarks/blocks.py", *sys.argv[1:]]),
        "chip": f"{args.chip}, by its compiler",
        "date": datetime.date.today().isoformat(),
        "blocks": rows,
    }
    output = args.output or RESULTS / f"blocks_{args.chip}{'_training' if args.training else ''}.json"
    write_file(output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
