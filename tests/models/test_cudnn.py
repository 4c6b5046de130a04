"""Probe of cuDNN's attention, on devices that cannot run it."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import pytest

from mimicmotion_jax import sharding
from mimicmotion_jax.models import cudnn
from mimicmotion_jax.models.attention import dot_product_attention
from mimicmotion_jax.models.execution import Execution
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


@pytest.mark.parametrize("sizes", [(4, 577, 5, 64), (8, 16, 5, 192), (4 * 65536, 72, 1, 64)])
def test_shapes_without_a_kernel_are_left_to_xla(sizes):
    """An odd number of tokens, a wide head, more sequences than a grid has rows."""
    x = jax.ShapeDtypeStruct(sizes, jnp.bfloat16)
    attend = functools.partial(dot_product_attention, execution=Execution(platform="cuda", cudnn_attention=True))
    assert "cudnn" not in str(jax.make_jaxpr(attend)(x, x, x))


@pytest.mark.parametrize(
    ("dtype", "dim", "batch", "tokens", "supported"),
    [
        ("bfloat16", 64, 65535, 9216, True),
        ("float16", 128, 1, 128, True),
        ("float32", 64, 1, 128, False),
        ("bfloat16", 136, 1, 128, False),
        ("bfloat16", 60, 1, 128, False),
        ("bfloat16", 64, 65536, 128, False),
        ("bfloat16", 64, 1, 577, False),
    ],
)
def test_supported_shapes(dtype, dim, batch, tokens, supported):
    """Half precision, heads of multiples of 8 up to 128, even lengths, one row of a CUDA grid per sequence."""
    assert cudnn.supports(jax.ShapeDtypeStruct((1, tokens, 1, dim), dtype), batch, tokens, tokens) == supported


class Card:
    """A GPU of another process, which is not probed."""

    device_kind = "NVIDIA card"

    def __init__(self, compute_capability):
        self.compute_capability = compute_capability


@pytest.mark.parametrize(("capability", "runs"), [("7.5", False), ("8.0", True), ("9.0", True)])
def test_cards_before_ampere_do_not_run_it(capability, runs, caplog):
    with caplog.at_level(logging.WARNING):
        assert cudnn.runs_on(Card(capability)) == runs
    assert ("older than Ampere" in caplog.text) == (not runs)


def test_amds_names_are_no_compute_capability():
    assert cudnn.compute_capability(Card("gfx90a")) is None
    assert cudnn.compute_capability(Card("8.6")) == 8.6


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
