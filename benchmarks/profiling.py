"""Profile of one part of the model by kind of operation, on the local CPU or GPU.

    python benchmarks/profiling.py [unet|decode|generation|training] [--size full]

Runs our side of benchmarks/versus_torch.py under jax's profiler, after a first run that compiles. The kind of each
operation is read from XLA's dump of the program. For chips that are absent see benchmarks/blocks.py.
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
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # cached programs are not dumped

import jax
from versus_torch import CASES, Sides

from mimicmotion_jax.xla_report.hlo import read_hlo
from mimicmotion_jax.xla_report.operations import CONTAINERS, kind_of_work


def kinds_of_work(program: str) -> dict[str, str]:
    """Kind of work of each operation by name, from optimised HLO; "" for loops and calls, whose contents are listed."""
    computations, _ = read_hlo(program.splitlines(), everything=True)
    return {
        instruction.name: "" if instruction.opcode in CONTAINERS else kind_of_work(instruction, computations)
        for computation in computations.values()
        for instruction in computation.instructions
    }


def events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Yield program id, operation and seconds of every event in a trace."""
    (path,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    yield stats["program_id"], stats["hlo_op"], event.duration_ns / 1e9


def profile(part: str, size: str) -> collections.Counter[str]:
    """Measure seconds by kind of work, summed over all devices."""
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
    """Print a table, most expensive first."""
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
