"""The training loop, for every kind of training: restore or initialise, step, log, save, sample, export."""

import collections
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from etils import epath
from jax.sharding import Mesh
from tqdm import tqdm

from mimicmotion_jax import sharding
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.runtime.atomic_files import absolute_path, exclusive
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import fetch, report_out_of_memory
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import RunConfig
from mimicmotion_jax.training.interrupt import Interruption
from mimicmotion_jax.training.metrics import MetricLog, Stopwatch
from mimicmotion_jax.training.resume import check_resume, describe_run
from mimicmotion_jax.training.state import Metrics, Params, TrainState, abstract_state, init_state

logger = logging.getLogger(__name__)


class Task(Protocol):
    """Kind of training: its networks, its data and its step. All processes call the methods together."""

    progress: bool
    mesh: Mesh
    loader: ClipLoader
    memory_advice: str
    """Changes that save memory, for the message if it runs out."""

    @property
    def config(self) -> RunConfig:
        """Options of the run."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every trained parameter, float32."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that makes the model: a run is resumed only if it is equal. JSON values by option."""
        ...

    def load(self) -> Params:
        """Load or initialise all networks; returns the parameters to train, as they are at step 0."""
        ...

    def next_batch(self) -> Any:
        """Read the next batch."""
        ...

    def step(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Start a step on the devices, without waiting; the metrics include `loss` and `finite` (0 or 1)."""
        ...

    def sample(self, state: TrainState, step: int) -> None:
        """Write samples that show what has been learned; a failure is logged and does not end the run."""
        ...

    def export(self, state: TrainState) -> epath.Path:
        """Write the trained model; returns its folder."""
        ...

    def peak_steps_per_second(self) -> float | None:
        """Steps per second if the devices computed at their peak; None if unknown."""
        ...


def train(task: Task) -> int | None:
    """Train from the newest checkpoint in the run's folder, or from the start, to the last step; then export.

    The host runs one step ahead: it prepares a batch and starts a step while the devices work on the step before.

    Args:
        task: what is trained; all processes call this together.

    Returns:
        None, or the number of the signal that ended the run early; everything is saved then, and the same call goes on
        from there.

    Raises:
        InputError: a checkpoint of another model, a loss or gradient that is not finite, a checkpoint that cannot be
            written, or not enough memory.
    """
    config, directory, first_process = task.config, absolute_path(task.config.output), jax.process_index() == 0
    with contextlib.ExitStack() as stack, report_out_of_memory(task.memory_advice):
        if first_process:
            stack.enter_context(exclusive(directory))
        stack.callback(task.loader.close)
        checkpoints = stack.enter_context(RunCheckpoints(directory / "checkpoints", config.keep, config.keep_every))
        state = restore_or_initialise(task, checkpoints)
        first = int(state.step)
        log = stack.enter_context(MetricLog(directory if first_process else None, first))
        interruption = stack.enter_context(Interruption())
        bar = tqdm(total=config.steps, initial=first, desc="training", unit="step", disable=not task.progress)
        stack.enter_context(bar)
        _say("training on %s", sharding.describe_mesh(task.mesh))

        running: collections.deque[tuple[int, Metrics]] = collections.deque()
        watch, peak, stop = Stopwatch(), task.peak_steps_per_second(), False
        for step in range(first + 1, config.steps + 1):
            state, metrics = task.step(state, task.next_batch())
            running.append((step, metrics))
            stop = interruption.reached(step)
            log_now = step in (first + 1, config.steps) or step % config.log_every == 0
            save_now = stop or step % config.save_every == 0

            values: dict[str, float] = {}
            while len(running) > (0 if log_now or save_now else 1):
                number, metrics = running.popleft()
                values = _read_metrics(number, metrics, config.batch_size, checkpoints)
                bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
                bar.update()
            if log_now:
                if step == first + 1:
                    watch.restart(step)  # the first step compiled
                else:
                    values |= _speed(watch.rate(step), config.batch_size, peak)
                log.write(step, values)
            if save_now:
                with watch.pause():
                    save(task, state, checkpoints)
            if stop:
                break
            if config.sample_every and step % config.sample_every == 0:
                with watch.pause():
                    task.sample(state, step)

        save(task, state, checkpoints)
        checkpoints.finish()
        bar.close()
        if int(state.step) < config.steps:
            _say("stopped and saved at step %d; the same command goes on from there", int(state.step))
            return interruption.signal
        _say("wrote %s", task.export(state))
        return None


def restore_or_initialise(task: Task, checkpoints: RunCheckpoints) -> TrainState:
    """Load the newest checkpoint, and move the loader to its position, or make the state of step 0.

    Raises:
        InputError: a checkpoint of another model, a damaged one, or a disk without room for the next.
    """
    config, latest = task.config, checkpoints.choose()
    if latest is not None:
        saved = checkpoints.read_run()
        if changed := check_resume(saved, describe_run(task), checkpoints.directory.parent):
            _say("note: changed since this run was started: %s", ", ".join(changed))
    abstract = abstract_state(task.shapes, config.optimizer, config.steps, task.mesh)
    checkpoints.check_room(abstract)
    params = task.load()
    if latest is None:
        return init_state(params, config.optimizer, config.steps, task.mesh)
    del params  # make room
    state, position = checkpoints.restore(abstract)
    task.loader.set_state(position)
    _say("going on from step %d", latest)
    return state


def save(task: Task, state: TrainState, checkpoints: RunCheckpoints) -> None:
    """Start writing a checkpoint of the state, the position in the data and the configuration."""
    checkpoints.save(state, task.loader.get_state(), describe_run(task))


def _read_metrics(step: int, metrics: Metrics, batch_size: int, checkpoints: RunCheckpoints) -> dict[str, float]:
    """Wait for a step and return its metrics.

    Raises:
        InputError: its loss or gradient is not finite.
    """
    values = {name: float(value) for name, value in fetch(metrics).items()}
    if values.pop("finite"):
        return values
    checkpoints.finish()
    latest = checkpoints.newest_undamaged()
    kept = "no good checkpoint was saved before it" if latest is None else f"the checkpoint of step {latest} is good"
    raise InputError(
        f"loss or gradient is not finite at step {step} (loss {values['loss']}, samples {(step - 1) * batch_size} to "
        f"{step * batch_size - 1}); {kept}: lower optimizer.learning_rate or look at these samples, and run the same "
        "command to go on from there."
    )


def _speed(steps_per_second: float, batch_size: int, peak: float | None) -> dict[str, float]:
    """Steps and samples per second, and the part of the devices' peak that the model's own arithmetic takes."""
    speed = {"steps_per_second": steps_per_second, "samples_per_second": steps_per_second * batch_size}
    return speed if peak is None else speed | {"model_flops_utilisation": steps_per_second / peak}


def _say(message: str, *args: Any) -> None:
    if jax.process_index() == 0:
        logger.info(message, *args)
