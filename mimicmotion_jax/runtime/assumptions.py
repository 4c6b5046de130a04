"""Assumptions about inputs: what a file does not say is assumed, logged once, and collected for the run's report."""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Iterator

logger = logging.getLogger(__name__)

_collections: contextvars.ContextVar[tuple[list[str], ...]] = contextvars.ContextVar("_collections", default=())


def assume(sentence: str) -> None:
    """Log an assumption, once per process, and collect it; `sentence` names the file and how to say otherwise."""
    _log_once(sentence)
    for sentences in _collections.get():
        if sentence not in sentences:
            sentences.append(sentence)


@contextlib.contextmanager
def collect_assumptions() -> Iterator[list[str]]:
    """Collect the assumptions that this thread makes in the `with` block."""
    sentences: list[str] = []
    token = _collections.set((*_collections.get(), sentences))
    try:
        yield sentences
    finally:
        _collections.reset(token)


@functools.lru_cache(4096)
def _log_once(sentence: str) -> None:
    logger.info("%s", sentence)
