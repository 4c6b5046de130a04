"""A transformer computed in parts of a video against the same at once, which `test_unet.py` compares with PyTorch."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from official import jit

from mimicmotion_jax import sharding
from mimicmotion_jax.checkpoint import fill_network, flat_params
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.models.transformer import SpatioTemporalTransformer
from mimicmotion_jax.xla_report import compile_report, topology_devices

CHANNELS, CONTEXT = 32, 24
FRAMES, HEIGHT, WIDTH = 6, 4, 6


@pytest.fixture(scope="module")
def inputs():
    """Transformer of two layers with random parameters, two videos and their contexts."""
    random = np.random.default_rng(0)
    module = SpatioTemporalTransformer(Init(nnx.Rngs(0)), CHANNELS, 2, 2, CONTEXT)
    shapes = {key: x.shape for key, x in flat_params(nnx.state(module)).items()}
    params = {key: 0.3 * random.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    video = random.standard_normal((2, FRAMES, HEIGHT, WIDTH, CHANNELS), np.float32)
    return fill_network(module, params), video, random.standard_normal((2, CONTEXT), np.float32)


def trace(inputs, execution: Execution, placed=jnp.asarray):
    """The program that computes the transformer, and its arguments."""

    def transform(module, video, context):
        return module(video, module.conditions(context, FRAMES), execution)

    module, video, context = inputs
    arguments = module, placed(video), context
    return jit(transform).trace(*arguments), arguments


def loops(traced) -> list[int]:
    """Number of turns of each loop."""
    return sorted(map(int, re.findall(r"length=(\d+)", str(traced.jaxpr))))


def result(traced, arguments):
    return traced.lower().compile()(*arguments)


@pytest.fixture(scope="module")
def whole(inputs):
    traced, arguments = trace(inputs, DEFAULT)
    assert loops(traced) == []
    return result(traced, arguments)


def part_size(frames: int) -> int:
    """Elements of the widest activation of so many frames of both videos."""
    return 2 * frames * HEIGHT * WIDTH * 4 * CHANNELS


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (part_size(5), [2, 2, 2, 2]),  # five of six frames fit, but three divide them; all positions of one video
        (part_size(1) - 1, [6, 6, 8, 8]),  # not one frame fits, so one all the same; seven of one video's 24 positions
    ],
)
def test_parts_change_nothing(limit, expected, inputs, whole):
    """Both layers within frames, and both along them."""
    traced, arguments = trace(inputs, Execution(part_size=limit, inside_part=True))
    assert loops(traced) == expected
    np.testing.assert_allclose(result(traced, arguments), whole, atol=2e-6 * float(jnp.abs(whole).max()))


def test_each_device_computes_its_own_parts(inputs, whole):
    """A video on either half of the devices, so three frames or twelve positions on each: parts of one, and of four."""
    mesh = sharding.window_mesh(sharding.sampling_mesh(4), 2, 1, FRAMES, HEIGHT * WIDTH)
    execution = dataclasses.replace(sharding.sampling_execution(mesh), part_size=part_size(1) // 2)
    place = jax.sharding.NamedSharding(mesh, jax.P((sharding.WINDOWS, sharding.BRANCHES), sharding.FRAMES))
    traced, arguments = trace(inputs, execution, lambda video: jax.device_put(video, place))
    assert loops(traced) == [3, 3, 3, 3]
    compiled = traced.lower().compile()
    assert "all-to-all" in compiled.as_text()
    assert "all-gather" not in compiled.as_text()
    np.testing.assert_allclose(compiled(*arguments), whole, atol=2e-6 * float(jnp.abs(whole).max()))


@pytest.mark.slow
def test_parts_on_chips_take_less_memory_and_no_more_traffic():
    """A window of eight frames, two branches, on four v5e chips, by the compiler: frames go to positions and back."""
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topology_devices("v5e:2x2")), 1, 2, 8, 72 * 128)
    parts = sharding.sampling_execution(mesh)
    module = nnx.eval_shape(lambda: SpatioTemporalTransformer(Init(nnx.Rngs(0), jnp.bfloat16), 320, 5, 1, 1024))
    split = jax.P((sharding.WINDOWS, sharding.BRANCHES), sharding.FRAMES)

    def shape(x, spec):
        return jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=jax.sharding.NamedSharding(mesh, spec))

    arguments = (
        jax.tree.map(lambda x: shape(x, jax.P()), module),
        shape(np.empty((2, 8, 72, 128, 320)), split),
        shape(np.empty((2, 1024)), jax.P(split[0])),
    )

    def compiled(execution):
        def run(module, video, context):
            return module(video, module.conditions(context, 8), execution)

        return compile_report(jit(run).lower(*arguments), mesh)

    whole, found = compiled(dataclasses.replace(parts, part_size=None)), compiled(parts)
    assert found.collectives == whole.collectives
    assert found.collectives.keys() == {"all-to-all"}
    assert found.flops_per_chip == pytest.approx(whole.flops_per_chip, rel=1e-3)
    assert found.memory.temporaries < whole.memory.temporaries / 2
    assert sum(found.estimated_cycles.values()) < 0.8 * sum(whole.estimated_cycles.values())
