"""Metrics of a run: lines of JSON, TensorBoard, and speed."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from etils import epath

from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError

logger = logging.getLogger(__name__)


class MetricLog:
    """Log of metrics in DIR/metrics.jsonl and DIR/tensorboard, used as a context manager.

    Args:
        directory: local or gs://; None writes nothing (on all processes but the first).
        step: the run starts after this step; lines of later steps, which a resumed run repeats, are dropped.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, directory: epath.PathLike | None, step: int = 0):
        self._path = self._board = None
        if directory is None:
            return
        try:
            from tensorboard.summary import Writer
        except ImportError:
            raise InputError('training logs to TensorBoard: pip install "mimicmotion_jax[train]".') from None
        self._path = epath.Path(directory) / "metrics.jsonl"
        self._lines = _read_lines(self._path, step)
        self._write_all(self._path)
        self._board = Writer(str(epath.Path(directory) / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one line of JSON, and one point to each curve of TensorBoard."""
        if self._path is None or self._board is None:
            return
        line = json.dumps({"step": step, **values})
        self._lines.append(line)
        if isinstance(self._path, Path):
            with self._path.open("a") as file:
                file.write(line + "\n")
        else:  # object stores cannot append
            self._write_all(self._path)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def _write_all(self, path: epath.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(line + "\n" for line in self._lines).encode())


def _read_lines(path: epath.Path, last_step: int) -> list[str]:
    """Read the lines of steps up to `last_step`, without a half-written line of a killed run."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    steps = [_step(line) for line in lines]
    if damaged := steps.count(None):
        # Not an error: a power cut leaves such lines, and the run itself goes on from its checkpoint.
        logger.warning("%s: %d damaged line(s) dropped", path, damaged)
    return [line.decode() for line, step in zip(lines, steps, strict=True) if step is not None and step <= last_step]


def _step(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


class Stopwatch:
    """Steps per second between calls of `rate`, without the time spent inside `pause`."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, step: int) -> None:
        """Start measuring anew, for example after a first step that compiled."""
        self._step, self._since = step, time.perf_counter()

    def rate(self, step: int) -> float:
        """Steps per second since the last call or restart."""
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._since, 1e-9)
        self._step, self._since = step, now
        return rate

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out the time of the block."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start
