"""Relative error of the full-size UNet with int8 weights, beside that of bfloat16, on random weights.

    python benchmarks/int8.py [--frames 2] [--height 8] [--width 16]

One call at a middle noise level, on latents of a reduced size with all of the full model's channels, in float32 but for
the row bfloat16. The weights are normally distributed: trained ones have outliers, which make int8 coarser.
"""

import argparse
import datetime
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from card.measuring import relative_difference
from flax import nnx

from mimicmotion_jax.diffusion.edm import precondition
from mimicmotion_jax.models.build import random_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.quantization import quantize_network
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.runtime.atomic_files import write_file

OUTPUT = Path(__file__).resolve().parent / "results" / "int8.json"


def main() -> None:
    """Measure, print and write the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--height", type=int, default=8, help="of the latents")
    parser.add_argument("--width", type=int, default=16, help="of the latents")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    size = {"frames": args.frames, "height": args.height, "width": args.width}

    unet = _random_unet("float32")
    expected, float_bytes = _predict(unet, **size), _bytes(unet)
    quantize_network(unet)
    rows = {"int8": {"error": relative_difference(_predict(unet, **size), expected)}}
    halves = {"int8_bytes": _bytes(unet), "float32_bytes": float_bytes}
    del unet
    rows["bfloat16"] = {"error": relative_difference(_predict(_random_unet("bfloat16"), **size), expected)}
    report = {
        **size,
        **halves,
        "command": shlex.join(["python", "benchmarks/int8.py", *sys.argv[1:]]),
        "machine": f"CPU, {platform.machine()}, python {platform.python_version()}, jax {jax.__version__}",
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }
    print(json.dumps(report, indent=1))
    write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())


def _random_unet(dtype: str) -> nnx.Module:
    return jax.device_put(random_network("unet", ModelConfig(), np.random.default_rng(0), jnp.dtype(dtype)))


def _bytes(network: nnx.Module) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(network))


def _predict(unet: nnx.Module, frames: int, height: int, width: int) -> np.ndarray:
    """Predict v of one branch at noise level 1."""
    config, random = ModelConfig().unet, np.random.default_rng(1)
    sample = random.standard_normal((1, frames, height, width, config.in_channels), np.float32)
    context = random.standard_normal((1, config.context_dim), np.float32)

    @jax.jit
    def run(unet: UNet, sample: Any, context: Any) -> jax.Array:
        c_noise = jnp.broadcast_to(precondition(jnp.float32(1.0)).c_noise, 1)
        conditions = unet.conditions(context, jnp.float32([[6, 127, 0]]), frames)
        return unet(sample, c_noise, conditions).astype(jnp.float32)

    return np.asarray(run(unet, sample, context))


if __name__ == "__main__":
    main()
