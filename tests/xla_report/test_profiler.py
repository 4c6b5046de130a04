"""Profiling works in a process that has the TPU compiler loaded: libtpu and jax must fit each other."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax
from mimicmotion_jax.xla_report.topologies import topology_devices
topology_devices("v5e:2x2")  # loads libtpu, whose profiler takes part in the trace
with jax.profiler.trace(sys.argv[1]):
    jax.block_until_ready(jax.numpy.ones(8) * 2)
"""


def test_a_trace_is_written_with_libtpu_loaded(tmp_path):
    pytest.importorskip("libtpu")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path], env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    (trace,) = tmp_path.rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
