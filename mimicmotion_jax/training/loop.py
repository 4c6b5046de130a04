"""A training run from start, or from where it stopped, to its end; what `train.py` calls."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from tqdm import tqdm

from mimicmotion_jax import sharding
from mimicmotion_jax.compiled.hardware import peak_flops
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.directories import absolute_path
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.encode import BY_FRAME, encode_pixels, take_encodings
from mimicmotion_jax.training.interrupt import Interruption
from mimicmotion_jax.training.metrics import MetricLog, Stopwatch
from mimicmotion_jax.training.networks import check_shapes, load_frozen, model_config
from mimicmotion_jax.training.objective import Encoded
from mimicmotion_jax.training.outputs import Sampler, best_params, export_model
from mimicmotion_jax.training.program import forward_flops
from mimicmotion_jax.training.state import (
    Template,
    TrainState,
    abstract_state,
    initial_params,
    new_state,
    split_trainable,
)
from mimicmotion_jax.training.step import Metrics, make_train_step

logger = logging.getLogger(__name__)


class Run:
    """Everything a training run holds; the constructor fails before anything long starts where the input is wrong.

    Args:
        config: of the run.
        progress: show bars and log.
        devices: None takes those of all processes.

    Raises:
        InputError: whatever is wrong with configuration, data, checkpoint or devices.
    """

    def __init__(self, config: TrainConfig, progress: bool = True, devices: Sequence[jax.Device] | None = None):
        self.config, self.progress = config, progress and jax.process_index() == 0
        self.directory = absolute_path(config.output)
        self.mesh = sharding.training_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frames, devices)
        self.model = model_config(config)
        check_shapes(config, self.model, self.mesh)
        share, num_shares = sharding.local_rows(self.mesh, config.batch_size)
        self.loader = ClipLoader(
            config.data, config.batch_size, config.seed, share, num_shares, downscale=self.model.vae.downscale
        )
        self.template = Template(self.model)
        self.trained, self.fixed = split_trainable(list(self.template.shapes), config.trainable)
        self.checkpoints = RunCheckpoints(self.directory / "checkpoints", config.keep, config.keep_every)
        self.state, self.frozen = self._start()
        self.checkpoints.check_room(self.state)
        self.encoders = load_frozen(config, self.model, self.mesh, config.dtype, self.progress)
        self.sampler = Sampler(config, self.model, self.template) if config.sample_every else None
        self.step_function = make_train_step(config, self.template, self.mesh)

    def _start(self) -> tuple[TrainState, dict[str, jax.Array]]:
        """Fresh or from the newest checkpoint; sets the loader to where it was."""
        shapes = {key: self.template.shapes[key] for key in self.trained}
        abstract = abstract_state(shapes, self.config, self.mesh)
        latest = self.checkpoints.latest()
        if latest is not None:
            self._compare(self.checkpoints.read_run())
        params = {}
        if latest is None or self.fixed:
            params = initial_params(self.config, self.model, self.mesh, self.progress)
        frozen = {key: params.pop(key) for key in self.fixed}
        if latest is None:
            shardings = jax.tree.map(lambda x: x.sharding, abstract)
            make = jax.jit(lambda params: new_state(params, self.config), out_shardings=shardings)
            return make(params), frozen
        state, data = self.checkpoints.restore(abstract)
        self.loader.set_state(data)
        self._say("going on from step %d", latest)
        return state, frozen

    def _compare(self, saved: dict[str, Any]) -> None:
        """Refuse to continue another model's run; say what else has changed."""
        now = self._describe()
        if saved["model"] != now["model"] or saved["trained"] != now["trained"]:
            raise InputError(
                f"{self.directory} holds a run of another model (sizes or trainable parameters differ); choose another "
                "output, or remove it."
            )
        changed = [
            key
            for key in ("seed", "batch_size", "dtype", "data", "objective", "optimizer")
            if saved["config"].get(key) != now["config"][key]
        ]
        if changed:
            self._say("note: %s differ(s) from what this run was started with", ", ".join(changed))

    def _describe(self) -> dict[str, Any]:
        config = to_dict(self.config)
        return _plain({"config": config, "model": to_dict(self.model), "trained": sorted(self.trained)})

    def train(self) -> int | None:
        """Go on to the last step, then export.

        Returns:
            None, or the number of the signal that ended the run before that; everything is saved then.

        Raises:
            InputError: a loss or gradient that is not finite, or a checkpoint that cannot be written.
        """
        config, first = self.config, int(self.state.step)
        log = MetricLog(self.directory if jax.process_index() == 0 else None, first)
        with contextlib.closing(log), contextlib.closing(self.loader), Interruption() as interruption:
            self._steps(log, interruption, first)
            self.save()
            self.checkpoints.finish()
            if interruption.signal is None or int(self.state.step) == config.steps:
                export_model(config, self.model, self.template, best_params(self.state, self.frozen), self.mesh)
                self._say("wrote %s", self.directory / "model")
                return None
        self._say("stopped and saved at step %d; the same command goes on from there", int(self.state.step))
        return interruption.signal

    def _steps(self, log: MetricLog, interruption: Interruption, first: int) -> None:
        config, watch = self.config, Stopwatch()
        flops = 3 * forward_flops(config, self.model) * config.batch_size
        pending: tuple[int, Metrics] | None = None
        bar = tqdm(total=config.steps, initial=first, desc="training", unit="step", disable=not self.progress)
        with bar:
            for step in range(first + 1, config.steps + 1):
                batch = self.next_batch()
                self.state, metrics = self.step_function(self.state, self.frozen, batch)
                # The host waits for the step before, while the device works on this one.
                if pending is not None:
                    self._finish_step(*pending, bar)
                pending = step, metrics
                if step == first + 1 or step % config.log_every == 0 or step == config.steps:
                    values = self._finish_step(*pending, bar)
                    pending = None
                    if step == first + 1:  # it compiled: its speed says nothing
                        watch.restart(step)
                    else:
                        values |= self._speed(watch.rate(step), flops)
                    log.write(step, values)
                stop = interruption.reached(step)
                if step % config.save_every == 0 or stop:
                    if pending is not None:
                        self._finish_step(*pending, bar)
                        pending = None
                    with _timed(watch):
                        self.save()
                if stop:
                    return
                if config.sample_every and step % config.sample_every == 0:
                    with _timed(watch):
                        self.sample(step)

    def next_batch(self) -> Encoded:
        """The next batch on the devices, encoded."""
        local = next(self.loader)
        batch = sharding.global_batch(self.mesh, self.config.batch_size, local, BY_FRAME)
        vae = self.encoders["vae"]
        if self.config.data.encodings:
            return take_encodings(batch, vae.config.scaling_factor)
        config = self.config
        return encode_pixels(vae, self.encoders["image_encoder"], batch, config.objective, config.seed, self.mesh)

    def save(self) -> None:
        """Start writing a checkpoint of the state and of the position in the data."""
        self.checkpoints.save(self.state, self.loader.get_state(), self._describe())

    def sample(self, step: int) -> None:
        """Make the sample videos."""
        self.sampler(step, best_params(self.state, self.frozen), self.encoders, self.directory / "samples")

    def _finish_step(self, step: int, metrics: Metrics, bar: tqdm) -> dict[str, float]:
        """Wait for a step; its metrics as numbers.

        Raises:
            InputError: loss or gradient is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}
        if not values.pop("finite"):
            self.checkpoints.finish()
            latest = self.checkpoints.latest()
            kept = f"the checkpoint of step {latest} is good" if latest is not None else "nothing was saved before it"
            samples = f"{(step - 1) * self.config.batch_size} to {step * self.config.batch_size - 1}"
            raise InputError(
                f"loss or gradient is not finite at step {step} (loss {values['loss']}, samples {samples}); {kept}: "
                "lower optimizer.learning_rate or look at these samples, and run the same command to go on from there."
            )
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        bar.update(step - bar.n)
        return values

    def _speed(self, steps_per_second: float, flops: float) -> dict[str, float]:
        """Steps and samples per second, and what part of the devices' peak that is where the peak is known."""
        speed = {"steps_per_second": steps_per_second, "samples_per_second": steps_per_second * self.config.batch_size}
        peak = peak_flops(self.mesh.devices.flat[0].device_kind)
        if peak is not None:
            speed["model_flops_utilisation"] = steps_per_second * flops / (peak * self.mesh.size)
        return speed

    def _say(self, message: str, *args: Any) -> None:
        if jax.process_index() == 0:
            logger.info(message, *args)


@contextlib.contextmanager
def _timed(watch: Stopwatch) -> Iterator[None]:
    """Leave the time that the block takes out of the speed."""
    start = time.perf_counter()
    yield
    watch.exclude(time.perf_counter() - start)


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
