"""FLOPs of jaxprs against formulas worked by hand, PyTorch's counter and the known cost of the full UNet."""

import jax
import jax.numpy as jnp
import pytest
import torch
from jax.experimental import pallas as pl
from jax.sharding import AxisType, PartitionSpec
from torch.utils.flop_counter import FlopCounterMode

from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.flops import count_flops, valid_products


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def convolve(x, kernel, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4), (2, 4)])
def test_convolution_and_its_gradients_cost_what_torch_counts(stride, groups):
    layer = torch.nn.Conv2d(8, 16, 3, stride, padding=1, groups=groups)
    x = torch.zeros(2, 8, 12, 10, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = layer(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()

    def loss(x, kernel):
        return jnp.sum(convolve(x, kernel, stride, groups) ** 2)

    arguments = shape(2, 8, 12, 10), shape(*layer.weight.shape)
    assert count_flops(lambda x, k: convolve(x, k, stride, groups), *arguments) == forward.get_total_flops()
    assert count_flops(jax.grad(loss, (0, 1)), *arguments) == 3 * forward.get_total_flops()
    if groups == 1:  # torch multiplies a grouped kernel's gradient by the number of groups
        assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_attention_costs_what_torch_counts():
    query, key, value = (torch.zeros(2, 3, n, 16) for n in (24, 40, 40))
    with FlopCounterMode(display=False) as counter:
        torch.softmax(query @ key.mT, -1) @ value
    ours = count_flops(jax.nn.dot_product_attention, shape(2, 24, 3, 16), shape(2, 40, 3, 16), shape(2, 40, 3, 16))
    assert ours == counter.get_total_flops() == 4 * 2 * 3 * 24 * 40 * 16


def test_control_flow():
    x, w = shape(8, 16), shape(16, 16)
    once = 2 * 8 * 16 * 16

    def step(x, w):
        return jnp.tanh(x @ w)

    def scan(x, w):
        return jax.lax.scan(lambda carry, _: (step(carry, w), None), x, length=5)[0]

    def branch(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: step(step(x, w), w), lambda: step(x, w))

    def loop(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: step(x, w), x)

    def rematerialised(x, w):
        return jnp.sum(jax.checkpoint(lambda x: step(jax.checkpoint(step)(x, w), w))(x) ** 2)

    assert count_flops(jax.jit(step), x, w) == once
    assert count_flops(scan, x, w) == 5 * once
    assert count_flops(branch, x, w) == 2 * once
    assert count_flops(loop, x, w) == once
    # Gradients by x of two layers: two forward, two backward, and at least the first layer forward again.
    assert count_flops(jax.grad(rematerialised), x, w) >= 5 * once


def test_custom_gradient_counts_the_path_taken():
    @jax.custom_vjp
    def f(x, w):
        return x @ w

    f.defvjp(lambda x, w: (x @ w, w), lambda w, g: (g @ w.T @ w @ w.T, jnp.zeros_like(w)))
    once = 2 * 8 * 16 * 16
    assert count_flops(f, shape(8, 16), shape(16, 16)) == once
    assert count_flops(jax.grad(lambda x, w: f(x, w).sum()), shape(8, 16), shape(16, 16)) == 4 * once


def test_shard_map_counts_all_devices():
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("x"), PartitionSpec()
    f = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert count_flops(f, shape(16, 8), shape(8, 4)) == 2 * 16 * 8 * 4


def test_pallas_kernel_counts_its_grid():
    def kernel(a, b, out):
        out[...] = a[...] @ b[...]

    f = pl.pallas_call(
        kernel,
        grid=(4,),
        in_specs=[pl.BlockSpec((8, 16), lambda i: (i, 0)), pl.BlockSpec((16, 8), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((8, 8), lambda i: (i, 0)),
        out_shape=shape(32, 8),
    )
    assert count_flops(f, shape(32, 16), shape(16, 8)) == 2 * 32 * 16 * 8


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((5, 5, 3, 1, 1), 13),  # 3 + 3 + 3, and 2 at either end
        ((5, 3, 3, 2, 1), 7),  # centres 0, 2, 4
        ((3, 5, 3, 1, 1, 2), 7),  # the gradient of the line above: the same products
        ((4, 4, 4, 1, 3, 1, 1), 10),  # 1 + 2 + 3 + 4
        ((5, 1, 3, 1, 0, 1, 2), 3),
        ((6, 2, 3, 1, -2), 6),  # cropped: never outside
    ],
)
def test_valid_products(arguments, expected):
    assert valid_products(*arguments) == expected


@pytest.mark.slow
def test_full_size_unet():
    config, frames, height, width = ModelConfig(), 16, 72, 128
    unet = abstract_network("unet", config, jnp.bfloat16)
    conditions = jax.eval_shape(
        lambda unet, context, ids: unet.conditions(context, ids, frames), unet, shape(1, 1024), shape(1, 3)
    )
    count = count_flops(
        lambda unet, *arguments: unet(*arguments),
        unet,
        shape(1, frames, height, width, 8, dtype=jnp.bfloat16),
        shape(1),
        conditions,
        shape(1, frames, height, width, 320, dtype=jnp.bfloat16),
    )
    # The official network also projects the queries and outputs of its cross-attentions, one spatial and one temporal
    # in each transformer, for every position; with the context of one token they are constants.
    widths = config.unet.block_out_channels
    transformers = [(c, level) for level, c in enumerate(widths[:3]) for _ in range(5)] + [(widths[3], 3)]
    tokens = [frames * (height >> level) * (width >> level) for _, level in transformers]
    skipped = sum(2 * 2 * 2 * n * c * c for n, (c, _) in zip(tokens, transformers, strict=True))
    assert (count + skipped) / 1e12 == pytest.approx(51.2, rel=0.005)
