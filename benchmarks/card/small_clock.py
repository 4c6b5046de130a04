"""A training that follows the clock: as many steps as fit the time, the learning rate by the share that has passed."""

import collections
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from card.small_sizes import TICKS
from mimicmotion_jax.training.state import Metrics, TrainState

_LINE_SECONDS = 10.0
_IN_FLIGHT = 2  # steps that are started before the oldest is waited for


class Clock:
    """Time of the whole run.

    Args:
        seconds: until the process may be ended.
        reserve: seconds of these for evaluation and export.
    """

    def __init__(self, seconds: float, reserve: float):
        self._start = time.monotonic()
        self.end = self._start + seconds
        """Second of `time.monotonic` at which everything must be written."""
        self.training_end = self.end - reserve
        """Second at which training must end."""

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()

    def say(self, message: str) -> None:
        """Print a line with the time."""
        now = time.monotonic()
        print(f"[{now - self._start:4.0f} s, {self.end - now:4.0f} s left] {message}", flush=True)


def at_tick(state: TrainState, tick: int) -> TrainState:
    """Set the place in the learning rate's schedule; Adam's own count of steps and the average's are left alone."""

    def move(part: Any) -> Any:
        if isinstance(part, optax.ScaleByScheduleState):
            return part._replace(count=jax.device_put(np.int32(tick), part.count.sharding))
        return part

    def is_schedule(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    return state._replace(opt_state=jax.tree.map(move, state.opt_state, is_leaf=is_schedule))


def train_by_clock(
    name: str,
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    batches: Iterator[Any],
    clock: Clock,
    until: float,
    *,
    frames: int,
    first_tick: int = 0,
    max_steps: int | None = None,
    after_step: Callable[[TrainState], None] = lambda state: None,
    about: Callable[[], str] = str,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Train until a second of `time.monotonic`.

    Args:
        name: for the lines that are printed.
        state: to start from.
        step: starts a step, without waiting.
        batches: on the device.
        clock: of the run.
        until: when to end.
        frames: of a batch, for the speed.
        first_tick: place in the schedule of learning rates to begin at, below `TICKS`.
        max_steps: end after so many steps.
        after_step: called after every step was started.
        about: further words for the lines.

    Returns:
        The state, and the metrics that were printed.
    """
    begin = last = time.monotonic()
    history: list[dict[str, float]] = []
    running: collections.deque[Metrics] = collections.deque()
    losses: list[float] = []
    number = counted = 0
    while True:
        now = time.monotonic()
        passed = (now - begin) / max(until - begin, 1e-6)
        if max_steps is not None:
            passed = max(passed, number / max_steps)
        if passed >= 1:
            break
        state, metrics = step(at_tick(state, int(first_tick + (TICKS - first_tick) * passed)), next(batches))
        running.append(metrics)
        number += 1
        after_step(state)
        if len(running) > _IN_FLIGHT:
            losses.append(float(running.popleft()["loss"]))
        if losses and (now - last > _LINE_SECONDS or not history):
            speed = frames * (number - counted) / (now - last) if history else 0.0
            row = {"second": now - begin, "step": number, "loss": float(np.nanmean(losses)), "frames_per_s": speed}
            history.append({key: float(f"{value:.5g}") for key, value in row.items()})
            clock.say(f"{name}: step {number}, loss {row['loss']:.4f}, {speed:.0f} frames/s{about()}")
            last, counted, losses = now, number, []
    if running:
        last_metrics = {key: float(f"{value:.5g}") for key, value in jax.device_get(running[-1]).items()}
        del last_metrics["learning_rate"]  # of a schedule that counts steps
        clock.say(f"{name}: ended at step {number} with {last_metrics}")
        history.append({"second": round(time.monotonic() - begin, 2), "step": number, **last_metrics})
    return state, history
