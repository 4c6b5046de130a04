"""Failing sequences are left out of a run, with the reason; the remaining ones go on."""

import contextlib
import logging
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from mimicmotion_jax.runtime.errors import InputError, root_cause

logger = logging.getLogger(__name__)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


class Failures:
    """Sequences that failed, with the reason by name.

    Args:
        log: file that tracebacks are appended to; created for the first one. That of an earlier run is removed.
    """

    def __init__(self, log: Path):
        self.reasons: dict[str, str] = {}
        self._log = log
        log.unlink(missing_ok=True)
        self._first: Exception | None = None

    @contextlib.contextmanager
    def leave_out(self, name: str) -> Iterator[None]:
        """Run the block for one sequence; any exception leaves this sequence out instead of ending the run."""
        try:
            yield
        except Exception as error:
            self._first = self._first or error
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {root_cause(error)}."
            self.reasons[name] = reason
            logger.error("sequence %s is left out: %s", name, reason)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"sequence {name}: {reason}\n{''.join(traceback.format_exception(error))}\n")

    def remaining(self, items: Iterable[T]) -> list[T]:
        """Return the items whose sequences have not failed.

        Raises:
            InputError: all failed because of the input.
            Exception: all failed, the first one because of this.
        """
        left = [item for item in items if item.name not in self.reasons]
        if not left and self._first is not None:
            if not isinstance(self._first, InputError):
                raise self._first
            name, reason = next(iter(self.reasons.items()))
            raise InputError(f"every sequence failed, the first one, {name}, because: {reason}")
        return left
