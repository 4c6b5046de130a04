"""Memory that stays with the process, told by the pages that the system hands out when it is used again."""

import os
import subprocess
import sys

import pytest

from mimicmotion_jax.runtime import cpu_memory

SIZE = 64 * 2**20
PAGES = SIZE // 4096
SCRIPT = f"""
import os, resource, sys
from mimicmotion_jax.runtime.cpu_memory import keep_freed_memory
before = os.getpid()
keep_freed_memory()
import numpy
def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones({SIZE}, numpy.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
faults()
print(min(faults() for _ in range(3)), os.getpid(), *sys.argv[1:], sep="|")
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the allocator is that of Linux")


def run(**environment: str) -> tuple[int, list[str], int]:
    given = {key: value for key, value in os.environ.items() if key not in ("GLIBC_TUNABLES", "JAX_PLATFORMS")}
    command = [sys.executable, "-c", SCRIPT, "an argument", "--another=ü"]
    with subprocess.Popen(command, env=given | environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    faults, *rest = output.strip().split("|")
    return int(faults), rest, process.pid


def test_a_freed_block_costs_nothing_when_it_is_used_again():
    faults, (number, *arguments), started = run(JAX_PLATFORMS="cpu")
    assert faults < PAGES / 100
    assert (int(number), arguments) == (started, ["an argument", "--another=ü"])


@pytest.mark.parametrize(
    "environment", [{"JAX_PLATFORMS": "cuda"}, {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.check=0"}]
)
def test_accelerators_and_settings_of_the_user_are_left_alone(environment):
    faults, (number, *arguments), started = run(**environment)
    assert faults >= PAGES / 512  # the system maps the block anew, in pages of 4 KB or 2 MB
    assert (int(number), arguments) == (started, ["an argument", "--another=ü"])


def test_without_a_choice_the_devices_of_the_system_decide(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(cpu_memory, "_ACCELERATORS", (str(tmp_path / "nvidia[0-9]*"),))
    assert cpu_memory._computes_on_cpu()
    (tmp_path / "nvidiactl").touch()
    assert cpu_memory._computes_on_cpu()
    (tmp_path / "nvidia0").touch()
    assert not cpu_memory._computes_on_cpu()
