"""Where the time of a part goes, operation by operation, on the CPU or GPU at hand.

    python benchmarks/profiling.py [unet|decode|generation|training] [--size full]

One run of ours from benchmarks/versus_torch.py under jax's profiler, after one that compiles. What each operation does
is read from the program that XLA writes down. For a TPU that is not there, benchmarks/tpu_blocks.py.
"""

import argparse
import collections
import os
import re
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

_HEADER = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(")
_CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_MOVES = {"bitcast", "broadcast", "concatenate", "copy", "pad", "reshape", "slice", "transpose", "dynamic-slice"}
_CONTAINERS = {"while", "conditional", "call"}  # whose contents are events of their own


def read_operations(text: str) -> dict[str, str]:
    """The kind of work of each instruction of an optimised program."""
    opcodes: dict[str, set[str]] = collections.defaultdict(set)
    found: dict[str, tuple[str, str | None]] = {}
    current = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header[1]
        elif match := _LINE.match(line):
            name, opcode = match.groups()
            target, called = _TARGET.search(line), _CALLS.search(line)
            opcodes[current].add(opcode)
            found[name] = (target[1] if target else opcode, called and called[1])
    return {name: _kind(opcode, opcodes.get(called, set())) for name, (opcode, called) in found.items()}


def _kind(opcode: str, inside: set[str]) -> str:
    if opcode in _CONTAINERS:
        return ""
    if opcode != "fusion":
        inside = {opcode}
    for heaviest, kind in (("convolution", "convolution"), ("dot", "matrix product"), ("reduce", "reduction")):
        if heaviest in inside:
            return kind
    if inside - {"constant", "parameter"} <= _MOVES:
        return "copy"
    return "elementwise" if opcode == "fusion" else opcode


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
        kinds[program] = read_operations(path.read_text())
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
