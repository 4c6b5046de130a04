"""A training run of the VAE from start, or from where it stopped, to its end; it uses one device."""

import contextlib
import json
import logging
from typing import Any

import jax

from mimicmotion_jax import sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import report_out_of_memory
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.initial import initial_params
from mimicmotion_jax.training.autoencoder.loss import Metrics
from mimicmotion_jax.training.autoencoder.outputs import Validation, export_encoders, measure_scaling_factor
from mimicmotion_jax.training.autoencoder.step import VAETemplate, make_vae_step
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.metrics import MetricLog
from mimicmotion_jax.training.state import Params, TrainState, abstract_state, new_state
from mimicmotion_jax.training.stepping import Plan, log_failures, run_steps

logger = logging.getLogger(__name__)

_LESS_MEMORY = "lower batch_size, data.num_frames, data.width or data.height, or use a device with more memory"


class VAERun:
    """Everything a run holds; the constructor fails before anything long starts where the input is wrong.

    Args:
        config: of the run.
        progress: show bars and log.

    Raises:
        InputError: whatever is wrong with configuration or data.
    """

    @report_out_of_memory(_LESS_MEMORY)
    def __init__(self, config: VAETrainConfig, progress: bool = True):
        self.config, self.progress = config, progress
        self.directory = absolute_path(config.output)
        self.mesh = sharding.training_mesh(devices=jax.local_devices()[:1])
        self.model = config.model(config.vae.scaling_factor)
        self.template = VAETemplate(self.model)
        self.loader = ClipLoader(config.data, config.batch_size, config.seed, downscale=self.model.vae.downscale)
        self.validation = Validation(config, self.template)
        self.checkpoints = RunCheckpoints(self.directory / "checkpoints", config.keep)
        self.state = self._start()
        self.checkpoints.check_room(self.state)
        self.step_function = make_vae_step(config, self.template)
        self._validation_log = MetricLog(self.directory / "validation", int(self.state.step))

    def _start(self) -> TrainState:
        """Fresh or from the newest checkpoint; sets the loader to where it was."""
        optimizer, steps = self.config.optimizer, self.config.steps
        abstract = abstract_state(self.template.shapes, optimizer, steps, self.mesh)
        latest = self.checkpoints.latest()
        if latest is None:
            params = initial_params(self.model, self.config.seed)
            shardings = jax.tree.map(lambda x: x.sharding, abstract)
            return jax.jit(lambda params: new_state(params, optimizer, steps), out_shardings=shardings)(params)
        self._compare(self.checkpoints.read_run())
        state, data = self.checkpoints.restore(abstract)
        self.loader.set_state(data)
        self._say("going on from step %d", latest)
        return state

    def _compare(self, saved: dict[str, Any]) -> None:
        """Refuse to continue another model's run; say what else has changed."""
        now = self._describe()
        if saved["vae"] != now["vae"]:
            raise InputError(
                f"{self.directory} holds a run of another VAE (its sizes differ); choose another output, or remove it."
            )
        changed = [key for key in ("seed", "batch_size", "data", "loss", "optimizer") if saved.get(key) != now[key]]
        if changed:
            self._say("note: %s differ(s) from what this run was started with", ", ".join(changed))

    def _describe(self) -> dict[str, Any]:
        """The configuration as JSON gives it back."""
        return json.loads(json.dumps(to_dict(self.config)))

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
        )
        with contextlib.closing(self.loader), contextlib.closing(self._validation_log):
            return run_steps(self, plan, self.directory, self.progress)

    def advance(self) -> Metrics:
        """Start the next step; its metrics, before they are there."""
        batch = next(self.loader)
        used = {key: batch[key] for key in ("index", "frames", "hand_mask")}
        self.state, metrics = self.step_function(self.state, used)
        return metrics

    def save(self) -> None:
        """Start writing a checkpoint of the state and of the position in the data."""
        self.checkpoints.save(self.state, self.loader.get_state(), self._describe())

    def sample(self, step: int) -> None:
        """Measure reconstructions and show some."""
        with log_failures(f"reconstructions of step {step}", "set sample_every=null"):
            values = self.validation(self._best_params(), self.directory / "samples" / f"step_{step:07d}.png")
            self._validation_log.write(step, values)

    def export(self) -> None:
        """Write the encoders as a checkpoint, with the scaling factor that their latents need."""
        last = int(self.state.step)
        if not self.config.sample_every or last % self.config.sample_every:
            self.sample(last)
        vae = self.template.network(self._best_params())
        scaling_factor = measure_scaling_factor(self.config, vae, self.progress)
        export_encoders(self.directory / "model", self.config, vae, scaling_factor)
        self._say("wrote %s (scaling factor %.4f)", self.directory / "model", scaling_factor)

    def _best_params(self) -> Params:
        return self.state.ema or self.state.params

    def _say(self, message: str, *args: Any) -> None:
        if self.progress:
            logger.info(message, *args)
