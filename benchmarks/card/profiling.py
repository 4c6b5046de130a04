"""Time of a part of the model by operation, with the names that the source gives them.

XLA's dump of the programs, which the process must be told to write, says what each operation is.
"""

import collections
import contextlib
import functools
import inspect
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
from flax import nnx

from card.events import events
from card.inputs import fast_dtype, random_pipeline
from card.our_side import Ours, Run
from card.results import Results, Row
from card.sizes import size_of
from mimicmotion_jax.models import blocks, convolutions, layers, transformer
from mimicmotion_jax.xla_report.hlo import read_hlo
from mimicmotion_jax.xla_report.operations import CONTAINERS, kind_of_work

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


@contextlib.contextmanager
def named_layers() -> Iterator[None]:
    """Give the operations of programs that are traced meanwhile the classes of their layers as names."""
    modules = (blocks, convolutions, layers, transformer)
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, nnx.Module) and value.__module__ == module.__name__
    }

    def named(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def scoped(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            with jax.named_scope(type(self).__name__):
                return call(self, *args, **kwargs)

        return scoped

    with contextlib.ExitStack() as stack:
        for layer in classes:
            if any("__call__" in vars(base) for base in layer.__mro__):
                stack.enter_context(mock.patch.object(layer, "__call__", named(layer.__call__)))
        yield


def _profile(results: Results, part: str, size: str) -> None:
    ours = Ours(size_of(size), random_pipeline(size_of(size), fast_dtype()))

    def row() -> Row:
        with ours.precision, named_layers():
            return profile(getattr(ours, part)())

    results.row(part, "operations", row)


def profile(run: Run) -> Row:
    """Trace a second run; return milliseconds by kind of work and of the worst operations."""
    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            run()
            wall = time.perf_counter() - start
        ran = list(events(Path(folder)))
    programs = {program: describe(program) for program in {program for program, _, _ in ran}}
    kinds: collections.Counter[str] = collections.Counter()
    by_layer: collections.Counter[str] = collections.Counter()
    operations: collections.Counter[tuple[int, str]] = collections.Counter()
    for program, operation, seconds in ran:
        found = programs[program].get(operation, Operation("not in the dump"))
        if found.kind:  # "" for loops and calls, whose contents are in the trace themselves
            kinds[found.kind] += 1e3 * seconds
            by_layer[found.layer] += 1e3 * seconds
            operations[program, operation] += 1e3 * seconds
    worst = [
        {"ms": round(ms, 3), "name": name, **programs[program].get(name, Operation("not in the dump"))._asdict()}
        for (program, name), ms in operations.most_common(_WORST)
    ]
    return {
        "wall_ms": round(1e3 * wall, 2),
        "busy_ms": round(kinds.total(), 2),
        "kinds_ms": {kind: round(ms, 2) for kind, ms in kinds.most_common()},
        "layers_ms": {layer: round(ms, 2) for layer, ms in by_layer.most_common(_WORST)},
        "worst": worst,
    }


class Operation(NamedTuple):
    """Kind of work, shape and name of an operation, and the layer that it belongs to."""

    kind: str
    shape: str = ""
    source: str = ""

    @property
    def layer(self) -> str:
        """Classes of the layers around it, outermost first."""
        return "/".join(re.findall(r"\b[A-Z]\w+", self.source)) or "outside the layers"


def describe(program: int) -> dict[str, Operation]:
    """Describe each operation of a program by name, from XLA's dump."""
    # The newest, because the dumps of earlier processes are in the same folder.
    paths = sorted(FOLDER.glob(f"module_{program:04d}.*after_optimizations.txt"), key=lambda path: path.stat().st_mtime)
    if not paths:
        return {}
    text = paths[-1].read_text()
    lines = re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S+) (.*)$", text, re.MULTILINE)
    shapes = {name: shape for name, shape, _ in lines}
    sources = {name: found[1] for name, _, rest in lines if (found := re.search(r'op_name="([^"]*)"', rest))}
    computations, _ = read_hlo(text.splitlines(), everything=True)
    return {
        instruction.name: Operation(
            "" if instruction.opcode in CONTAINERS else kind_of_work(instruction, computations),
            shapes.get(instruction.name, "")[:80],
            sources.get(instruction.name, "")[-160:],
        )
        for computation in computations.values()
        for instruction in computation.instructions
    }
