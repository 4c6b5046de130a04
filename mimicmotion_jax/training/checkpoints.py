"""Checkpoints of a run: state and position in the data, written in the background, whole or not at all."""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mimicmotion_jax.checkpoint.restoring import explain_damage
from mimicmotion_jax.runtime.atomic_files import absolute_path, check_space
from mimicmotion_jax.runtime.errors import InputError, root_cause
from mimicmotion_jax.training.state import TrainState

# What orbax and tensorstore raise when a file cannot be written.
_STORAGE_ERRORS = (OSError, ValueError, KeyError, RuntimeError)


class RunCheckpoints:
    """The numbered checkpoints under `directory`, made and read by all processes together.

    Args:
        directory: local or gs://; created.
        keep: how many of the newest stay.
        keep_every: those at multiples of this stay as well.
    """

    def __init__(self, directory: epath.PathLike, keep: int, keep_every: int | None = None):
        self.directory = absolute_path(directory)
        policies = [preservation_policy.LatestN(keep)]
        if keep_every:
            policies.append(preservation_policy.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            save_interval_steps=1,
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.directory}: {error.strerror or error}; choose another output."
            ) from None

    def latest(self) -> int | None:
        """Number of the newest checkpoint that is complete."""
        return self._manager.latest_step()

    def check_room(self, state: TrainState) -> None:
        """See that a checkpoint fits on the disk, before hours are spent.

        Raises:
            InputError: it does not.
        """
        check_space(self.directory / "next", sum(x.nbytes for x in jax.tree.leaves(state)))

    def save(self, state: TrainState, data: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Start writing; returns when the state has been copied off the devices.

        Args:
            state: numbered by its step.
            data: position in the data.
            run: the configuration and sizes, to be compared on resume.

        Raises:
            InputError: no room, or this or the save before it failed; earlier checkpoints are untouched.
        """
        step = int(state.step)
        if step == self.latest():
            return
        try:
            # The one before must be through: its failure is told, and the room it took is known.
            self._manager.wait_until_finished()
            self.check_room(state)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(dict(data)), run=ocp.args.JsonSave(dict(run))
            )
            self._manager.save(step, args=items)
        except _STORAGE_ERRORS as error:
            raise self._failed(f"the checkpoint of step {step}", error) from error

    def finish(self) -> None:
        """Wait until what was started is written.

        Raises:
            InputError: it could not be; earlier checkpoints are untouched.
        """
        try:
            self._manager.wait_until_finished()
        except _STORAGE_ERRORS as error:
            raise self._failed("the last checkpoint", error) from error

    def read_run(self) -> dict[str, Any]:
        """What `save` was given as `run` in the newest checkpoint.

        Raises:
            InputError: a damaged checkpoint.
        """
        return self._restore(run=ocp.args.JsonRestore())["run"]

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State and position in the data of the newest checkpoint.

        Args:
            abstract: shapes, dtypes and shardings, which need not be those of the devices it was saved on.

        Raises:
            InputError: a damaged checkpoint, or one of another model or optimizer.
            jax.errors.JaxRuntimeError: the devices' memory does not suffice.
        """
        items = self._restore(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        return items["state"], items["data"]

    def close(self) -> None:
        """Release threads and files."""
        self._manager.close()

    def _restore(self, **items: Any) -> Any:
        step = self.latest()

        def damaged(reason: str) -> str:
            return (
                f"{self.directory / str(step)} cannot be restored ({reason}); it is damaged or of another model or "
                "optimizer: remove it to go on from the one before, or choose another output."
            )

        with explain_damage(damaged):
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _failed(self, what: str, error: Exception) -> InputError:
        self._manager.reload()  # what is on the disk counts, not what was meant to be
        steps = self._manager.all_steps()
        kept = f"the newest complete one is of step {max(steps)}" if steps else "there is no earlier one"
        return InputError(
            f"{what} could not be written to {self.directory} ({_reason(error)}); {kept}; make room and run the same "
            "command again to go on from there."
        )


def _reason(error: Exception) -> str:
    return "no space left on the device" if "No space left" in str(error) else root_cause(error)
