"""CPU cores as devices; in separate processes, because jax settles its devices when it is first used."""

import os
import subprocess
import sys

import pytest

from mimicmotion_jax.runtime.cpu_devices import available_cores


@pytest.mark.parametrize(("flags", "expected"), [("", 3), ("--xla_force_host_platform_device_count=2", 2)])
def test_the_cpu_is_split_unless_xla_flags_say_how(flags, expected):
    code = (
        "from mimicmotion_jax.runtime.cpu_devices import split_cpu; split_cpu(3); import jax; print(jax.device_count())"
    )
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert int(run.stdout) == expected


def test_devices_stay_as_they_are_once_used():
    code = (
        "import jax; before = jax.device_count(); from mimicmotion_jax.runtime.cpu_devices import split_cpu; "
        "split_cpu(before + 1); "
        "print(jax.device_count() - before)"
    )
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert int(run.stdout) == 0


def test_cores_are_counted_where_affinity_is_unknown(monkeypatch):
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert available_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1
