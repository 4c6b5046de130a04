"""Time of a part of the model by operation, with the names that the source gives them.

XLA's dump of the programs, which the process must be told to write, says what each operation is.
"""

import collections
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from card.inputs import fast_dtype, random_pipeline
from card.our_side import Ours, Run
from card.results import Results, Row
from card.sizes import size_of

FOLDER = Path(tempfile.gettempdir()) / "mimicmotion-profile"
"""Folder of the dump."""
_WORST = 20


def unet(results: Results, part: str, size: str) -> None:
    """Profile a denoising step."""
    _profile(results, part, size)


def decode(results: Results, part: str, size: str) -> None:
    """Profile decoding."""
    _profile(results, part, size)


def training(results: Results, part: str, size: str) -> None:
    """Profile the forward and backward pass."""
    _profile(results, part, size)


def _profile(results: Results, part: str, size: str) -> None:
    ours = Ours(size_of(size), random_pipeline(size_of(size), fast_dtype()))

    def row() -> Row:
        with ours.precision:
            return profile(getattr(ours, part)())

    results.row(part, "operations", row)


def profile(run: Run) -> Row:
    """Trace a second run; return milliseconds by kind of work and of the worst operations."""
    import jax

    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            run()
            wall = time.perf_counter() - start
        ran = list(events(Path(folder)))
    programs = {program: describe(program) for program in {program for program, _, _ in ran}}
    kinds: collections.Counter[str] = collections.Counter()
    operations: collections.Counter[tuple[int, str]] = collections.Counter()
    for program, operation, seconds in ran:
        kind, _ = programs[program].get(operation, ("not in the dump", ""))
        if kind:  # "" for loops and calls, whose contents are in the trace themselves
            kinds[kind] += 1e3 * seconds
            operations[program, operation] += 1e3 * seconds
    worst = [
        {"ms": round(ms, 3), "operation": operation, "kind": kind, "source": source}
        for (program, operation), ms in operations.most_common(_WORST)
        for kind, source in [programs[program].get(operation, ("not in the dump", ""))]
    ]
    rounded = {kind: round(ms, 2) for kind, ms in kinds.most_common()}
    return {"wall_ms": round(1e3 * wall, 2), "busy_ms": round(kinds.total(), 2), "kinds_ms": rounded, "worst": worst}


def events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Yield program id, operation and seconds of every event in a trace."""
    import jax

    (path,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    yield int(stats.get("program_id", -1)), stats["hlo_op"], event.duration_ns / 1e9


def describe(program: int) -> dict[str, tuple[str, str]]:
    """Kind of work and place in the source of each operation of a program, from XLA's dump."""
    from mimicmotion_jax.xla_report.hlo import read_hlo
    from mimicmotion_jax.xla_report.operations import CONTAINERS, kind_of_work

    # The newest, because the dumps of earlier processes are in the same folder.
    paths = sorted(FOLDER.glob(f"module_{program:04d}.*after_optimizations.txt"), key=lambda path: path.stat().st_mtime)
    if not paths:
        return {}
    text = paths[-1].read_text()
    sources = dict(re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', text, re.MULTILINE))
    computations, _ = read_hlo(text.splitlines(), everything=True)
    return {
        instruction.name: (
            "" if instruction.opcode in CONTAINERS else kind_of_work(instruction, computations),
            sources.get(instruction.name, "")[-160:],
        )
        for computation in computations.values()
        for instruction in computation.instructions
    }
