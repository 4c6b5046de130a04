"""Speed compared with PyTorch: the same weights and inputs, alternating in one process; for CPUs.

    python benchmarks/versus_torch.py [--size middle] [--parts unet training] [--rounds 5] [--devices 2]

On a CPU both sides compute in float32 and share nothing but the cores, so each round runs one after the other and the
ratio does not depend on the machine's state from minute to minute (`--devices 2` uses the cores as two devices). Each
figure is the median of the rounds; a ratio above 1 means that ours is faster. `--warm` times the second of two runs in
a row: a virtual machine's host may take back memory that one side frees while the other one runs. On a card the two
would share its memory: there benchmarks/gpu.py gives each a process of its own. `--compile` adds torch.compile.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

# jax must not take a card that it would share.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import torch
from card.measuring import relative_difference
from card.our_side import PARTS, Ours, Run
from card.sizes import SIZES
from card.torch_side import Theirs, official_loop

from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu

_WINDOWS = 2  # of training


def sides(part: str, theirs: Theirs, ours: Ours) -> tuple[Run, Run]:
    """Functions that run a part, PyTorch's and ours."""
    if part == "decode":
        return theirs.decode(ours.pipeline.mesh.size), ours.decode()
    if part == "training":
        return theirs.training(_WINDOWS), ours.training(_WINDOWS)
    return getattr(theirs, part)(), getattr(ours, part)()


def measure(theirs: Run, ours: Run, rounds: int, warm: bool) -> dict[str, float]:
    """Measure seconds of both sides, after a first run that compiles and compares their results."""
    error = relative_difference(ours(), theirs())
    seconds: dict[str, list[float]] = {"torch": [], "ours": []}
    for _ in range(rounds):
        for name, run in (("torch", theirs), ("ours", ours)):
            if warm:
                run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "torch_s": round(medians["torch"], 4),
        "ours_s": round(medians["ours"], 4),
        "ratio": round(medians["torch"] / medians["ours"], 3),
        "relative_difference": error,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure all parts and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", choices=SIZES, default="middle")
    add("--parts", nargs="+", choices=PARTS, default=PARTS)
    add("--rounds", type=int, default=5, metavar="N", help="rounds per part; default: 5")
    add("--warm", action="store_true", help="run each side once more before it is timed, like steps in a row")
    add("--compile", action="store_true", help="run PyTorch under torch.compile")
    add("--devices", type=int, default=1, metavar="N", help="devices to split the CPU's cores into; default: 1")
    add("--output", type=Path, metavar="FILE.json", help="also write the results to this file")
    args = parser.parse_args(argv)
    enable_compilation_cache()
    split_cpu(args.devices)
    size = SIZES[args.size]
    theirs = Theirs(size, torch.float32, args.compile)
    ours = Ours(size, official_loop(size, "cpu", torch.float32).in_jax(num_devices=args.devices))
    results = {
        "command": " ".join(["python", *sys.argv]),
        "size": args.size,
        "torch.compile": args.compile,
        "devices": args.devices,
        "warm": args.warm,
        "environment": {name: os.environ[name] for name in ("GLIBC_TUNABLES", "XLA_FLAGS") if name in os.environ},
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "parts": {},
    }
    with ours.precision:
        for part in args.parts:
            results["parts"][part] = measure(*sides(part, theirs, ours), args.rounds, args.warm)
            print(part, json.dumps(results["parts"][part]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
