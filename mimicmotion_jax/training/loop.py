"""A training run from start, or from where it stopped, to its end; what `train.py` calls."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import jax

from mimicmotion_jax import sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hardware import peak_flops
from mimicmotion_jax.runtime.out_of_memory import report_out_of_memory
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.encode import BY_FRAME, encode_pixels, take_encodings
from mimicmotion_jax.training.networks import check_encodings, check_sampling, check_shapes, load_frozen, model_config
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
from mimicmotion_jax.training.stepping import Plan, run_steps

logger = logging.getLogger(__name__)

_LESS_MEMORY = (
    "lower batch_size or raise accumulation, spread the run over more devices with mesh.fsdp or a sample with "
    "mesh.frames, and leave remat=true"
)


class Run:
    """Everything a training run holds; the constructor fails before anything long starts where the input is wrong.

    Args:
        config: of the run.
        progress: show bars and log.
        devices: None takes those of all processes.

    Raises:
        InputError: whatever is wrong with configuration, data, checkpoint or devices.
    """

    @report_out_of_memory(_LESS_MEMORY)
    def __init__(self, config: TrainConfig, progress: bool = True, devices: Sequence[jax.Device] | None = None):
        self.config, self.progress = config, progress and jax.process_index() == 0
        self.directory = absolute_path(config.output)
        self.mesh = sharding.training_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frames, devices)
        self.model = model_config(config)
        check_shapes(config, self.model, self.mesh)
        check_sampling(config, self.model)
        _, share, num_shares = sharding.local_rows(self.mesh, config.batch_size)
        self.loader = ClipLoader(
            config.data, config.batch_size, config.seed, share, num_shares, downscale=self.model.vae.downscale
        )
        check_encodings(config)
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
        abstract = abstract_state(shapes, self.config.optimizer, self.config.steps, self.mesh)
        latest = self.checkpoints.latest()
        if latest is not None:
            self._compare(self.checkpoints.read_run())
        params = {}
        if latest is None or self.fixed:
            params = initial_params(self.config, self.model, self.mesh, self.progress)
        frozen = {key: params.pop(key) for key in self.fixed}
        if latest is None:
            shardings = jax.tree.map(lambda x: x.sharding, abstract)
            make = jax.jit(
                lambda params: new_state(params, self.config.optimizer, self.config.steps), out_shardings=shardings
            )
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

    @report_out_of_memory(_LESS_MEMORY)
    def train(self) -> int | None:
        """Go on to the last step, then export.

        Returns:
            None, or the number of the signal that ended the run before that; everything is saved then.

        Raises:
            InputError: a loss or gradient that is not finite, a checkpoint that cannot be written, or memory that does
                not suffice.
        """
        config = self.config
        self._say("training on %s", sharding.describe_mesh(self.mesh))
        plan = Plan(
            first=int(self.state.step),
            steps=config.steps,
            batch_size=config.batch_size,
            log_every=config.log_every,
            save_every=config.save_every,
            sample_every=config.sample_every,
            peak_speed=self._peak_speed(),
        )
        with contextlib.closing(self.loader):
            return run_steps(self, plan, self.directory, self.progress)

    def advance(self) -> Metrics:
        """Start the next step; its metrics, before they are there."""
        batch = self.next_batch()
        self.state, metrics = self.step_function(self.state, self.frozen, batch)
        return metrics

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

    def export(self) -> None:
        """Write the trained model as a checkpoint for `sample.py`."""
        export_model(self.config, self.model, self.template, best_params(self.state, self.frozen), self.mesh)
        self._say("wrote %s", self.directory / "model")

    def _peak_speed(self) -> float | None:
        """Steps per second at the devices' peak; None where their peak is unknown."""
        peak = peak_flops(self.mesh.devices.flat[0].device_kind)
        if peak is None:
            return None
        return peak * self.mesh.size / (3 * forward_flops(self.config, self.model) * self.config.batch_size)

    def _say(self, message: str, *args: Any) -> None:
        if jax.process_index() == 0:
            logger.info(message, *args)


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
