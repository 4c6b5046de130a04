"""Checkpoints of a run: state and position in the data, written in the background, complete or not at all."""

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mimicmotion_jax.checkpoint.checksums import find_damage, write_checksums
from mimicmotion_jax.checkpoint.restoring import explain_damage, ignore_left_overs
from mimicmotion_jax.runtime.atomic_files import absolute_path, check_space
from mimicmotion_jax.runtime.errors import InputError, explain_disk_error, root_cause
from mimicmotion_jax.training.state import TrainState

logger = logging.getLogger(__name__)

# Raised by orbax and tensorstore when a file cannot be written.
_STORAGE_ERRORS = (OSError, ValueError, KeyError, RuntimeError)


class RunCheckpoints:
    """Numbered checkpoints in a folder, written and read by all processes together.

    Use it as a context manager, or `close` it.

    Args:
        directory: local or gs://; created.
        keep: number of newest checkpoints that are kept.
        keep_every: checkpoints at multiples of this step are kept as well.

    Raises:
        InputError: the folder cannot be created.
    """

    def __init__(self, directory: epath.PathLike, keep: int, keep_every: int | None = None):
        self.directory = absolute_path(directory)
        policies: list[preservation_policy.PreservationPolicy] = [preservation_policy.LatestN(keep)]
        if keep_every:
            policies.append(preservation_policy.EveryNSteps(keep_every))
        ignore_left_overs()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            save_interval_steps=1,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._add_checksums),
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.directory}: {error.strerror or error}; choose another output."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint; None without one."""
        return self._manager.latest_step()

    def newest_undamaged(self) -> int | None:
        """Step of the newest checkpoint whose files are as they were written; None without one."""
        return self._find_undamaged()[0]

    def choose(self) -> int | None:
        """Return the step to go on from, None at the start; damaged checkpoints after it get other names, loudly.

        Raises:
            InputError: all checkpoints are damaged.
        """
        chosen, damage = self._find_undamaged()
        if damage is None:
            return chosen
        if chosen is None:
            raise InputError(
                f"{self.directory / str(self.latest())} cannot be restored ({damage}), and no other checkpoint is "
                f"undamaged; remove {self.directory} to start again, or choose another output."
            )
        if jax.process_index() == 0:
            for step in filter(lambda step: step > chosen, self._manager.all_steps()):
                damaged = self.directory / str(step)
                renamed = damaged.with_name(f"{step}.damaged")
                renamed.rmtree(missing_ok=True)
                damaged.rename(renamed)
                logger.warning(
                    "WARNING: the checkpoint of step %d is damaged (%s) and was renamed to %s; going on from step %d",
                    *(step, damage, renamed, chosen),
                )
        multihost_utils.sync_global_devices("damaged checkpoints are renamed")
        self._manager.reload()
        return chosen

    def _find_undamaged(self) -> tuple[int | None, str | None]:
        """Return the newest undamaged step, as process 0 sees it, and the damage of the newest of all."""
        first_damage, found = None, None
        if jax.process_index() == 0:
            for step in sorted(self._manager.all_steps(), reverse=True):
                try:
                    damage = find_damage(self.directory / str(step))
                except (InputError, OSError) as error:
                    damage = str(error).rstrip(".")
                if damage is None:
                    found = step
                    break
                first_damage = first_damage or damage
        values = multihost_utils.broadcast_one_to_all(
            np.array([-1 if found is None else found, first_damage is not None], np.int32)
        )
        step = None if values[0] < 0 else int(values[0])
        return step, (first_damage or "damaged") if values[1] else None

    def _add_checksums(self) -> None:
        """Add checksums to a checkpoint when all processes have written it, before it gets its name."""
        if "://" not in str(self.directory):
            for unfinished in self.directory.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
                write_checksums(unfinished)

    def check_room(self, state: TrainState) -> None:
        """Check that a checkpoint fits on the disk; the state may be abstract.

        Raises:
            InputError: it does not fit.
        """
        needed = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        check_space(self.directory / "next", needed, "the parameters and optimizer state")

    def save(self, state: TrainState, data: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Start writing, unless the step is saved already; returns once the state is copied off the devices.

        Args:
            state: its step numbers the checkpoint.
            data: position in the data.
            run: description of the run, to be compared on resume.

        Raises:
            InputError: no room, or this or the previous save failed; earlier checkpoints are untouched.
        """
        step = int(state.step)
        if step == self.latest():
            return
        self.finish()  # its failure is not this save's, and the room that it takes must be known
        self.check_room(state)
        try:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(dict(data)), run=ocp.args.JsonSave(dict(run))
            )
            self._manager.save(step, args=items)
        except _STORAGE_ERRORS as error:
            raise self._failed(f"the checkpoint of step {step}", error) from error

    def finish(self) -> None:
        """Wait until the last save is written.

        Raises:
            InputError: it failed; earlier checkpoints are untouched.
        """
        try:
            self._manager.wait_until_finished()
        except _STORAGE_ERRORS as error:
            raise self._failed("the last checkpoint", error) from error

    def read_run(self) -> dict[str, Any]:
        """Description of the run in the newest checkpoint, as it was given to `save`.

        Raises:
            InputError: a damaged checkpoint.
        """
        return self._restore(run=ocp.args.JsonRestore())["run"]

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Read state and position in the data of the newest checkpoint.

        Args:
            abstract: shapes, dtypes and shardings; the devices may differ from those it was saved on.

        Raises:
            InputError: a damaged checkpoint, or one of another model or optimizer.
            jax.errors.JaxRuntimeError: not enough memory on the devices.
        """
        items = self._restore(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        return items["state"], items["data"]

    def close(self) -> None:
        """Wait for what is being written, then release threads; failures are raised by `save` and `finish`."""
        with contextlib.suppress(*_STORAGE_ERRORS):
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
        self._manager.reload()  # look at the disk again
        steps = self._manager.all_steps()
        kept = f"from the checkpoint of step {max(steps)}" if steps else "from the start, no checkpoint is complete"
        reason = explain_disk_error(error) or f"{root_cause(error)}; check the storage."
        return InputError(
            f"{what} could not be written to {self.directory}: {reason.rstrip('.')}; the same command goes on {kept}."
        )
