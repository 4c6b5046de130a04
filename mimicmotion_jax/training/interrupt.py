"""Stopping on signals: SIGTERM (preemption) and Ctrl-C end a run after the current step, on all processes together."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

import jax
from jax.experimental import multihost_utils


class Interruption:
    """Context manager that records a first SIGTERM or SIGINT instead of letting it end the process; a second one does.

    With several processes jax itself listens for SIGTERM and agrees on a step at which all of them stop; a first SIGINT
    is handed on to it as SIGTERM.
    """

    signal: int | None = None
    """Number of the signal that was received."""

    def __enter__(self) -> Self:
        self._several = jax.process_count() > 1
        watched = (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in watched}
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def reached(self, step: int) -> bool:
        """Return True if the run is to stop after this step; every process asks after every step."""
        if self._several and multihost_utils.reached_preemption_sync_point(step):
            self.signal = self.signal or signal.SIGTERM
            return True
        return self.signal is not None and not self._several

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt  # the second signal
        self.signal = number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
