"""Probe of cuDNN's attention, on devices that cannot run it."""

import dataclasses
import logging

import jax
import pytest

from mimicmotion_jax import sharding
from mimicmotion_jax.models import cudnn
from mimicmotion_jax.xla_report import topologies


def test_a_device_without_it_gives_an_error():
    """jax does not run it on a CPU; the message depends on what is installed."""
    error = cudnn.probe_error(jax.devices("cpu")[0])
    assert error
    assert "\n" not in error


def test_a_probe_that_runs_leaves_nothing_in_a_traced_program():
    errors = []

    def program(x):
        errors.append(cudnn.probe_error(jax.devices("cpu")[0], "xla"))
        return x

    assert not jax.make_jaxpr(program)(1.0).eqns
    assert errors == [None]


def test_no_probe_without_a_gpu():
    execution = sharding.sampling_execution(sharding.window_mesh(sharding.sampling_mesh(), 1, 1, 1, 1))
    assert (execution.platform, execution.cudnn_attention) == ("cpu", False)


@pytest.mark.cuda_compiler
@pytest.mark.parametrize(("capability", "runs"), [(7, False), (8, True), (9, True)])
def test_older_cards_do_not_use_it(capability, runs, monkeypatch, caplog):
    monkeypatch.setitem(
        topologies._GPUS, "card", dataclasses.replace(topologies._GPUS["a100"], compute_capability=capability)
    )
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topologies.topology_devices("card:1")), 1, 1, 1, 1)
    with caplog.at_level(logging.WARNING):
        execution = sharding.sampling_execution(mesh)
    assert (execution.platform, execution.cudnn_attention) == ("cuda", runs)
    assert ("older than Ampere" in caplog.text) == (not runs)
