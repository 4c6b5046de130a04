"""cuDNN's attention is tried before it is relied on; here by what cannot run it."""

import dataclasses
import logging

import jax
import pytest

from mimicmotion_jax import sharding
from mimicmotion_jax.models import cudnn
from mimicmotion_jax.xla_report import topologies


def test_a_device_without_it_objects():
    """jax refuses to run it on a CPU, in words that differ with what is installed."""
    objection = cudnn.probe_error(jax.devices("cpu")[0])
    assert objection
    assert "\n" not in objection


def test_what_runs_is_not_objected_to_and_leaves_no_trace_in_a_program():
    objections = []

    def program(x):
        objections.append(cudnn.probe_error(jax.devices("cpu")[0], "xla"))
        return x

    assert not jax.make_jaxpr(program)(1.0).eqns
    assert objections == [None]


def test_nothing_is_tried_where_there_is_no_gpu():
    execution = sharding.sampling_execution(sharding.window_mesh(sharding.sampling_mesh(), 1, 1, 1, 1))
    assert (execution.platform, execution.cudnn_attention) == ("cpu", False)


@pytest.mark.cuda_compiler
@pytest.mark.parametrize(("capability", "runs"), [(7, False), (8, True), (9, True)])
def test_older_cards_do_without(capability, runs, monkeypatch, caplog):
    monkeypatch.setitem(
        topologies._GPUS, "card", dataclasses.replace(topologies._GPUS["a100"], compute_capability=capability)
    )
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topologies.topology_devices("card:1")), 1, 1, 1, 1)
    with caplog.at_level(logging.WARNING):
        execution = sharding.sampling_execution(mesh)
    assert (execution.platform, execution.cudnn_attention) == ("cuda", runs)
    assert ("older than Ampere" in caplog.text) == (not runs)
