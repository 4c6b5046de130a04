"""Processes of a distributed run, joined on Cloud TPU pods, under SLURM, or by explicit addresses."""

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
    """Call `jax.distributed.initialize` if there is more than one process; before anything else uses jax.

    Args:
        distributed: detect process id and count from the cluster, as on a Cloud TPU pod.
        coordinator: address of process 0, HOST:PORT; with `num_processes` and `process_id` it overrides detection.
        num_processes: number of processes.
        process_id: number of this process, from 0.
        shutdown_timeout: seconds that a finished process waits for the others before jax ends them all. A process that
            is killed ends the others after jax's 100 s without a heartbeat.

    Without arguments, several tasks of SLURM's srun are detected from the environment.

    Returns:
        True if there are other processes.

    Raises:
        InputError: an incomplete address, no cluster found, or other processes that cannot be reached.
    """
    explicit = coordinator is not None or num_processes is not None or process_id is not None
    if explicit:
        if coordinator is None or num_processes is None or process_id is None:
            raise InputError(
                "--coordinator HOST:PORT, --num-processes N and --process-id I belong together; give all three."
            )
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"--process-id {process_id} must lie between 0 and {num_processes - 1} (--num-processes - 1)."
            )
    slurm_tasks = os.environ.get(_SLURM_TASKS, "1")
    if not (explicit or distributed or slurm_tasks != "1"):
        return False
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, shutdown_timeout_seconds=shutdown_timeout)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        which = "" if slurm_tasks == "1" else f" that {_SLURM_TASKS}={slurm_tasks} announces"
        raise InputError(
            f"the processes{which} could not be joined ({reason}): no cluster was recognised, or another process "
            "cannot be reached; see --help for how to give their addresses."
        ) from None
    return True
