"""Where the time of a part goes, operation by operation, on the CPU or GPU at hand.

    python benchmarks/profiling.py [unet|decode|generation|training] [--size full]

One run of ours from benchmarks/versus_torch.py under jax's profiler, after one that compiles. What each operation does
is read from the program that XLA writes down. For chips that are not there: benchmarks/blocks.py.
"""

import argparse
import collections
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_DUMP = tempfile.TemporaryDirectory()
# Before jax is imported.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={_DUMP.name} --xla_dump_hlo_as_text"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # what comes from the cache is not written down

import jax
from versus_torch import CASES, Sides

from mimicmotion_jax.xla_report.hlo import read_hlo
from mimicmotion_jax.xla_report.operations import CONTAINERS, kind_of_work


def kinds_of_work(program: str) -> dict[str, str]:
    """What each operation of an optimised program does, by its name; "" if its contents are operations of their own."""
    computations, _ = read_hlo(program.splitlines(), everything=True)
    return {
        instruction.name: "" if instruction.opcode in CONTAINERS else kind_of_work(instruction, computations)
        for computation in computations.values()
        for instruction in computation.instructions
    }


def events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Program, operation and seconds of everything that ran."""
    (path,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    yield stats["program_id"], stats["hlo_op"], event.duration_ns / 1e9


def profile(part: str, size: str) -> collections.Counter[str]:
    """Seconds by kind of work, over all devices."""
    sides = Sides(CASES[size], compiled=False)
    with tempfile.TemporaryDirectory() as folder, jax.default_matmul_precision(None if sides.gpu else "highest"):
        _, ours = getattr(sides, part)()
        ours()
        with jax.profiler.trace(folder):
            ours()
        ran = list(events(Path(folder)))
    kinds = {}
    for program in {program for program, _, _ in ran}:
        (path,) = Path(_DUMP.name).glob(f"module_{program:04d}.*after_optimizations.txt")
        kinds[program] = kinds_of_work(path.read_text())
    total: collections.Counter[str] = collections.Counter()
    for program, operation, seconds in ran:
        if kind := kinds[program].get(operation, operation):
            total[kind] += seconds
    return total


def main() -> None:
    """Print a table, dearest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("unet", "decode", "generation", "training"), default="unet")
    parser.add_argument("--size", choices=CASES, default="middle")
    args = parser.parse_args()
    total = profile(args.part, args.size)
    whole = total.total()
    print(f"| {args.part} | s | % |\n| --- | --- | --- |")
    for kind, seconds in total.most_common(12):
        print(f"| {kind} | {seconds:.3f} | {100 * seconds / whole:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
