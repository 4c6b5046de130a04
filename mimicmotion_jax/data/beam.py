"""Apache Beam: choosing a runner, and letting it prepare the items of a source with a bar that follows."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from mimicmotion_jax.data.dataset import EXTRA
from mimicmotion_jax.data.sources import Item
from mimicmotion_jax.data.work import Workshop
from mimicmotion_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Beam:
    """A runner and its options."""

    runner: Any
    flags: tuple[str, ...]

    def options(self) -> Any:
        """A fresh object, since pipelines change theirs."""
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions(flags=list(self.flags))


def choose_runner(options: Sequence[str]) -> Beam:
    """From `key=value` options, of which `runner` names the runner; the local one by default.

    Raises:
        InputError: Beam is missing, no such runner, or not an option.
    """
    try:
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.runners.runner import create_runner
    except ImportError:
        raise InputError(f"preparing data needs Apache Beam; run {EXTRA}.") from None
    values = {}
    for option in options:
        key, equals, value = option.strip().partition("=")
        if not equals or not key:
            raise InputError(
                f"'{option}' is no option for Apache Beam; write key=value, for example runner=FlinkRunner."
            )
        values[key] = value
    # The local engine by its own name: "DirectRunner" first tries another one that it has to download.
    name = values.pop("runner", "DirectRunner")
    try:
        runner = FnApiRunner() if name == "DirectRunner" else create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"Apache Beam has no runner '{name}' here ({error}).") from None
    return Beam(runner, tuple(f"--{key}={value}" for key, value in values.items()))


def prepare_items(workshop: Workshop, items: Sequence[Item], run_beam: Beam, progress: bool) -> None:
    """Let the runner prepare the items that are not done yet."""
    import apache_beam as beam

    todo = [item for item in items if not workshop.is_done(item)]
    if not todo:
        return
    with _watch(workshop, items, todo, progress), beam.Pipeline(run_beam.runner, run_beam.options()) as pipeline:
        # Beam would otherwise fuse the steps and leave everything to one worker.
        spread = pipeline | beam.Create(todo) | beam.Reshuffle()
        spread | "Prepare" >> beam.Map(workshop.prepare)


@contextlib.contextmanager
def _watch(workshop: Workshop, items: Sequence[Item], todo: Sequence[Item], progress: bool) -> Iterator[None]:
    """A bar of finished videos, wherever they are worked on: it looks for their files."""
    done, stop = len(items) - len(todo), threading.Event()

    def look(bar: tqdm) -> None:
        waiting, last = list(todo), False
        while not last:
            last = stop.wait(1)
            waiting = [item for item in waiting if not workshop.is_done(item)]
            bar.n = len(items) - len(waiting)
            bar.refresh()

    with tqdm(total=len(items), initial=done, desc="preparing", unit="video", disable=not progress) as bar:
        watcher = threading.Thread(target=look, args=(bar,))
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
