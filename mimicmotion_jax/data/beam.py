"""Apache Beam: preparing items with a progress bar, and errors of workers as one sentence."""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from mimicmotion_jax.data.pieces import RunError
from mimicmotion_jax.data.sources import Item
from mimicmotion_jax.data.work import Preparer
from mimicmotion_jax.runtime.beam import Beam, plain_errors

_SECONDS = 2.0  # between two looks at the finished pieces, each a request to gs://


def prepare_items(preparer: Preparer, items: Sequence[Item], num_finished: int, run_beam: Beam, progress: bool) -> None:
    """Let the runner prepare items; the progress bar begins at `num_finished`.

    Raises:
        RunError: see `Preparer`.
    """
    import apache_beam as beam

    shown = _progress_bar(preparer, items, num_finished) if progress else contextlib.nullcontext()
    with shown, plain_run_errors(), beam.Pipeline(run_beam.runner, run_beam.options()) as pipeline:
        # Beam would otherwise fuse the steps and leave everything to one worker.
        spread = pipeline | beam.Create(list(items)) | beam.Reshuffle()
        _ = spread | "Prepare" >> beam.Map(preparer)


@contextlib.contextmanager
def plain_run_errors() -> Iterator[None]:
    """Raise a worker's `RunError`, failure to write or Ctrl-C as such: runners report them as text in a traceback."""
    try:
        with plain_errors(RunError):
            yield
    except RunError:
        raise
    except Exception as error:
        # In the words of Python and of ArrayRecord's writer.
        text = f"{type(error).__name__}: {error}"
        if reasons := re.findall(r"(?:OSError: \[Errno \d+\]|write\(\) failed:) ([^:;\[\n]+)", text):
            raise OSError(reasons[-1].strip()) from error
        raise


@contextlib.contextmanager
def _progress_bar(preparer: Preparer, items: Sequence[Item], num_finished: int) -> Iterator[None]:
    """Show how many videos are finished, wherever they are worked on: count their pieces in the cache."""
    wanted, stop = {preparer.finished_name(item) for item in items}, threading.Event()

    def follow() -> None:
        last = False
        while not last:
            last = stop.wait(_SECONDS)
            bar.n = num_finished + len(wanted & preparer.cache.names())
            bar.refresh()

    with tqdm(total=num_finished + len(items), initial=num_finished, desc="preparing", unit="video") as bar:
        watcher = threading.Thread(target=follow)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
