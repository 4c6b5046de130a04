"""Numbers of a run: lines of JSON, TensorBoard, and how fast it goes."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from etils import epath

from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError

logger = logging.getLogger(__name__)


class MetricLog:
    """Writes to DIR/metrics.jsonl and DIR/tensorboard; a resumed run drops what lies behind its step.

    Args:
        directory: of the run, local or gs://; None writes nothing (on all processes but the first).
        step: at which the run starts or goes on.

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
        self._write_all()
        self._board = Writer(str(epath.Path(directory) / "tensorboard"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line, and one point per curve."""
        if self._path is None:
            return
        line = json.dumps({"step": step, **values})
        self._lines.append(line)
        if isinstance(self._path, Path):
            with self._path.open("a") as file:
                file.write(line + "\n")
        else:  # object stores cannot append
            self._write_all()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _write_all(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self._path, "".join(line + "\n" for line in self._lines).encode())


def _read_lines(path: epath.Path, last_step: int) -> list[str]:
    """The lines of steps up to `last_step`; a run that was killed may have left half a one at the end."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    steps = [_step(line) for line in lines]
    if damaged := steps.count(None):
        # Not worth an error: a power cut leaves such lines, and the run itself goes on from its checkpoint.
        logger.warning("%s: %d damaged line(s) dropped", path, damaged)
    return [line.decode() for line, step in zip(lines, steps, strict=True) if step is not None and step <= last_step]


def _step(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


class Stopwatch:
    """Steps per second between calls of `rate`, without what happens inside `pause`."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, step: int) -> None:
        """Forget what was measured, for example a first step that compiled."""
        self._step, self._since = step, time.perf_counter()

    def rate(self, step: int) -> float:
        """Steps per second since the last call or restart."""
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._since, 1e-9)
        self._step, self._since = step, now
        return rate

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out the time that the block takes."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start
