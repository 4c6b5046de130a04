"""Time of a training step by operation, from a trace of a few steps in the middle of a training."""

import collections
import itertools
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from card.events import events
from mimicmotion_jax.training.state import Metrics, TrainState

PROFILE = "SMALL_MODEL_PROFILE"
"""Environment variable: file for the worst operations; the programs must not use command buffers, which hide them."""

_FIRST, _LAST = 8, 11  # steps that are traced

Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def profiled(name: str, step: Step, program: jax.stages.Compiled) -> Step:
    """Make a step that adds its profile to the file, if one is wanted.

    Args:
        name: of the training.
        step: calls the program.
        program: that the step consists of.
    """
    if not (path := os.environ.get(PROFILE)):
        return step
    numbers, folder = itertools.count(), tempfile.mkdtemp()

    def traced(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        number = next(numbers)
        if number == _FIRST:
            jax.block_until_ready(state)
            jax.profiler.start_trace(folder)
        out = step(state, batch)
        if number == _LAST:
            jax.block_until_ready(out)
            jax.profiler.stop_trace()
            with Path(path).open("a") as file:
                file.write(_worst_operations(name, Path(folder), program))
        return out

    return traced


def _worst_operations(name: str, folder: Path, program: jax.stages.Compiled) -> str:
    """List operations by their milliseconds per step, each with its line of the program."""
    lines = dict(re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", program.as_text() or "", re.MULTILINE))
    spent: collections.Counter[str] = collections.Counter()
    for _, operation, seconds in events(folder):
        spent[operation] += 1e3 * seconds / (_LAST - _FIRST + 1)
    rows = [f"{ms:8.3f}  {operation}  {lines.get(operation, '')[:300]}" for operation, ms in spent.most_common(60)]
    return "\n".join([f"{name}: {spent.total():.1f} ms per step", *rows, ""])
