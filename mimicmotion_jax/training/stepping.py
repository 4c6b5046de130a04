"""The loop over steps that every training shares: log, save, show samples, stop in good order or at what is no number.

The host runs one step ahead: while the devices work on a step, it prepares the next one's batch and then waits for the
step before it.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
from etils import epath
from tqdm import tqdm

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import fetch, report_out_of_memory
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.interrupt import Interruption
from mimicmotion_jax.training.metrics import MetricLog, Stopwatch

logger = logging.getLogger(__name__)


class Training(Protocol):
    """What one kind of training brings: its state and what is done with it."""

    checkpoints: RunCheckpoints

    def advance(self) -> Mapping[str, jax.Array]:
        """Start the next step and return its metrics without waiting; among them are `loss` and `finite` (0 or 1)."""

    def save(self) -> None:
        """Start writing a checkpoint; nothing happens where there is one of this step."""

    def sample(self, step: int) -> None:
        """Show what has been learned so far; what fails there is not to end the run (see `log_failures`)."""

    def export(self) -> None:
        """Write the result, after the last step."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which steps are to be made, and what happens after which of them."""

    first: int
    """Steps that are done."""
    steps: int
    """In the whole run."""
    batch_size: int
    """Samples per step, over all devices."""
    log_every: int
    save_every: int
    sample_every: int | None = None
    """None: no samples."""
    peak_speed: float | None = None
    """Steps per second if the devices did nothing but the model's arithmetic; None where that is unknown."""


def run_steps(training: Training, plan: Plan, directory: epath.Path, progress: bool = True) -> int | None:
    """Go on to the last step, then export.

    Args:
        training: to be driven; all processes call this together.
        plan: of the steps.
        directory: of the run, for metrics.
        progress: show a bar.

    Returns:
        None, or the number of the signal that ended the run before its last step; everything is saved then.

    Raises:
        InputError: a loss or gradient that is not finite, or a checkpoint that cannot be written.
    """
    log = MetricLog(directory if jax.process_index() == 0 else None, plan.first)
    bar = tqdm(total=plan.steps, initial=plan.first, desc="training", unit="step", disable=not progress)
    with contextlib.closing(log), Interruption() as interruption:
        with bar:
            last = _steps(training, plan, log, interruption, bar)
        training.save()
        training.checkpoints.finish()
        if last == plan.steps:
            training.export()
            return None
    if jax.process_index() == 0:
        logger.info("stopped and saved at step %d; the same command goes on from there", last)
    return interruption.signal


def _steps(training: Training, plan: Plan, log: MetricLog, interruption: Interruption, bar: tqdm) -> int:
    """Make the steps; the number of the last one."""
    newest, watch = _Newest(training, plan.batch_size, bar), Stopwatch()
    for step in range(plan.first + 1, plan.steps + 1):
        newest.start(step)
        if step == plan.first + 1 or step % plan.log_every == 0 or step == plan.steps:
            values = newest.finish()
            if step == plan.first + 1:  # it compiled: its speed says nothing
                watch.restart(step)
            else:
                values |= _speed(watch.rate(step), plan)
            log.write(step, values)
        stop = interruption.reached(step)
        if stop or step % plan.save_every == 0:
            newest.finish()
            with watch.pause():
                training.save()
        if stop:
            return step
        if plan.sample_every and step % plan.sample_every == 0:
            with watch.pause():
                training.sample(step)
    return plan.steps


@contextlib.contextmanager
def log_failures(what: str, advice: str) -> Iterator[None]:
    """Around what only shows how far a run has come: where memory, disk or options fail it, that is logged, no more.

    Args:
        what: is made, for the message.
        advice: what to change where memory does not suffice.
    """
    try:
        with report_out_of_memory(advice):
            yield
    except (InputError, OSError) as error:
        logger.warning("%s could not be made, the run goes on: %s", what, error)


class _Newest:
    """The step that was started last, and whether it still has to be waited for."""

    def __init__(self, training: Training, batch_size: int, bar: tqdm):
        self._training, self._batch_size, self._bar = training, batch_size, bar
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None

    def start(self, step: int) -> None:
        """Start the next step, then wait for the one before."""
        metrics = self._training.advance()
        self.finish()
        self._pending = step, metrics

    def finish(self) -> dict[str, float]:
        """Wait for the step; its metrics as numbers, or nothing where it has been waited for.

        Raises:
            InputError: loss or gradient is not finite.
        """
        if self._pending is None:
            return {}
        (step, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in fetch(metrics).items()}
        if not values.pop("finite"):
            raise self._not_finite(step, values["loss"])
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)
        return values

    def _not_finite(self, step: int, loss: float) -> InputError:
        checkpoints, batch_size = self._training.checkpoints, self._batch_size
        checkpoints.finish()
        latest = checkpoints.latest()
        kept = f"the checkpoint of step {latest} is good" if latest is not None else "nothing was saved before it"
        return InputError(
            f"loss or gradient is not finite at step {step} (loss {loss}, samples {(step - 1) * batch_size} to "
            f"{step * batch_size - 1}); {kept}: lower optimizer.learning_rate or look at these samples, and run the "
            "same command to go on from there."
        )


def _speed(steps_per_second: float, plan: Plan) -> dict[str, float]:
    """Steps and samples per second, and what part of the devices' peak that is where the peak is known."""
    speed = {"steps_per_second": steps_per_second, "samples_per_second": steps_per_second * plan.batch_size}
    return speed if plan.peak_speed is None else speed | {"model_flops_utilisation": steps_per_second / plan.peak_speed}
