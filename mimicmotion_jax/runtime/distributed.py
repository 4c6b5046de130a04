"""Joining the processes of a run: Cloud TPU pods, SLURM, or addresses given by hand."""

import os

import jax

from mimicmotion_jax.runtime.errors import InputError

_SLURM_TASKS = "SLURM_STEP_NUM_TASKS"  # set by srun; SLURM_NTASKS is set in a batch script too, which is one process


def initialize(
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    shutdown_timeout: int = 300,
) -> bool:
    """Call `jax.distributed.initialize` where there is more than one process; before anything else touches jax.

    Addresses given by hand go first. Without them several tasks that SLURM's srun has started are recognised by their
    environment; `distributed` asks jax to find out by itself, as on a Cloud TPU pod.

    A process that has come to its end waits for the others; when `shutdown_timeout` (seconds) is over, jax ends them
    all. jax's 300 s suit processes that work together: where one has failed, the others wait in vain.
    A process that dies without a word ends the others in any case, after jax's 100 s without a heartbeat.

    Returns:
        whether there are other processes.

    Raises:
        InputError: only a part of the address was given, no cluster was found, or the others could not be reached.
    """
    given = (coordinator, num_processes, process_id)
    by_hand = any(value is not None for value in given)
    if by_hand and any(value is None for value in given):
        raise InputError(
            "--coordinator HOST:PORT, --num-processes N and --process-id I belong together; give all three."
        )
    if by_hand and not 0 <= process_id < num_processes:
        raise InputError(f"--process-id {process_id} must lie between 0 and {num_processes - 1} (--num-processes - 1).")
    slurm_tasks = os.environ.get(_SLURM_TASKS, "1")
    if not (by_hand or distributed or slurm_tasks != "1"):
        return False
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, shutdown_timeout_seconds=shutdown_timeout)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        which = "" if slurm_tasks == "1" else f" that {_SLURM_TASKS}={slurm_tasks} announces"
        raise InputError(
            f"the processes{which} could not be joined ({reason}): no cluster was recognised, or another process "
            "cannot be reached; see --help for how to say where they are."
        ) from None
    return True
