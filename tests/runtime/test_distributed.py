"""Environments recognised as several processes; each case in separate processes, because jax can join only once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from mimicmotion_jax.runtime import distributed
from mimicmotion_jax.runtime.errors import InputError
try:
    joined = distributed.initialize()
except InputError as error:
    sys.exit(str(error))
import jax
print(joined, jax.process_count(), jax.process_index())
"""
# Variables that SLURM sets in a batch script of `sbatch --ntasks=2`, and those that srun adds in each of its tasks.
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1"}


def start(**variables: str) -> subprocess.Popen:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "JAX"))}
    environment = kept | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | variables
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, **pipe)


def test_a_batch_script_is_one_process():
    process = start(**BATCH)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.split() == ["False", "1", "0"]


def test_tasks_of_srun_are_joined():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    variables = BATCH | STEP | {"JAX_COORDINATOR_PORT": str(port)}
    processes = [start(**variables | {"SLURM_PROCID": str(i)}) for i in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [output.split() for output, _ in results] == [["True", "2", "0"], ["True", "2", "1"]], results


def test_an_error_names_the_variable_that_announces_other_processes():
    process = start(SLURM_STEP_NUM_TASKS="2")  # without the others, of which jax makes the address
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("the processes that SLURM_STEP_NUM_TASKS=2 announces could not be joined (")
    assert errors.count("\n") == 1
