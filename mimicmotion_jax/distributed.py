"""Joining the processes of a run: Cloud TPU pods, SLURM, or addresses given by hand."""

import os

import jax

from mimicmotion_jax.errors import InputError


def initialize(
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> bool:
    """Call `jax.distributed.initialize` where there is more than one process; before anything else touches jax.

    Addresses given by hand go first. Without them a SLURM job of several tasks is recognised by its environment;
    `distributed` asks jax to find out by itself, as on a Cloud TPU pod.

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
    if not (by_hand or distributed or int(os.environ.get("SLURM_NTASKS", "1")) > 1):
        return False
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the processes could not be joined ({reason}): no cluster was recognised, or another process cannot be "
            "reached; see --help for how to say where they are."
        ) from None
    return True
