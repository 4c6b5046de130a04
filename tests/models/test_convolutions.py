"""Convolutions against PyTorch, in each way to compute them: results and gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from flax import nnx

from mimicmotion_jax.models.convolutions import Downsample, TemporalConv, Upsample
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.runtime.flops import count_flops


def copy(ours: nnx.Module, theirs: torch.nn.Module, axes: tuple[int, ...]) -> None:
    """Give PyTorch's convolution our kernel, with its axes in this order, and both the same bias."""
    ours.bias[...] = jnp.arange(float(ours.bias.size))
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(np.asarray(ours.kernel[...])).permute(axes).reshape(theirs.weight.shape))
        theirs.bias.copy_(torch.arange(float(ours.bias.size)))


def gradients(layer: nnx.Module, call: Callable[[Any, jax.Array], jax.Array], x: np.ndarray) -> tuple[Any, jax.Array]:
    """Gradients of the sum of squares of the output, of the layer and of its input."""
    with jax.default_matmul_precision("highest"):
        return jax.jit(jax.grad(lambda layer, x: jnp.sum(call(layer, x) ** 2), argnums=(0, 1)))(layer, x)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize(
    ("platform", "in_vae"),
    [("tpu", True), ("tpu", False), ("cuda", False), ("cpu", False)],
    ids=["per position", "products", "2-D", "2-D with products for the gradient"],
)
def test_temporal_convolution_is_pytorchs(platform, in_vae, frames):
    execution = Execution(platform=platform)
    ours = TemporalConv(Init(nnx.Rngs(0)), 6, 4, in_vae=in_vae)
    theirs = torch.nn.Conv3d(6, 4, (3, 1, 1), padding=(1, 0, 0))
    copy(ours, theirs, (2, 1, 0))
    x = np.array(jax.random.normal(jax.random.key(1), (2, frames, 3, 7, 6)))
    features = torch.tensor(np.moveaxis(x, -1, 1)).requires_grad_()
    out = theirs(features)
    expected = np.moveaxis(out.detach().numpy(), 1, -1)
    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(ours(x), expected, atol=2e-6)
        flat = ours(x.reshape(2, frames, 21, 6), execution)
        np.testing.assert_allclose(flat, expected.reshape(2, frames, 21, 4), atol=2e-6)
        np.testing.assert_allclose(ours(x, execution, jnp.full(1, 0.3)), 0.3 * expected, atol=2e-6)

    out.square().sum().backward()
    layer, of_x = gradients(ours, lambda layer, x: layer(x, execution), x)
    np.testing.assert_allclose(layer.kernel[...], theirs.weight.grad[..., 0, 0].permute(2, 1, 0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.bias[...], theirs.bias.grad, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.moveaxis(of_x, -1, 1), features.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(6, 6), (3, 5), (1, 2)])
@pytest.mark.parametrize("platform", ["cpu", "tpu", None], ids=["upsample in phases", "upsample dilated", "downsample"])
def test_layers_between_resolutions_are_pytorchs(platform, size):
    init, execution = Init(nnx.Rngs(0)), Execution(platform=platform or "any")
    ours = Upsample(init, 6) if platform else Downsample(init, 6, (1, 1))
    theirs = (Upsample2D if platform else Downsample2D)(6, use_conv=True)
    copy(ours.conv, theirs.conv, (3, 2, 0, 1))
    x = np.random.default_rng(0).standard_normal((2, *size, 6), np.float32)
    features = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    out = theirs(features)

    def call(layer: Upsample | Downsample, x: jax.Array) -> jax.Array:
        return layer(x, execution) if isinstance(layer, Upsample) else layer(x)

    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(call(ours, x), out.detach().permute(0, 2, 3, 1), atol=5e-6)
        of_video = call(ours, x[None])
    np.testing.assert_allclose(of_video[0], call(ours, x), atol=5e-6)

    out.square().sum().backward()
    layer, of_x = gradients(ours, call, x)
    expected = [theirs.conv.weight.grad.permute(2, 3, 1, 0), theirs.conv.bias.grad, features.grad.permute(0, 2, 3, 1)]
    for found, gradient in zip((layer.conv.kernel[...], layer.conv.bias[...], of_x), expected, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-4)


def test_upsampling_multiplies_the_small_picture():
    """Four weights meet each of the large picture's pixels, where the layer has nine."""
    layer, x = Upsample(Init(nnx.Rngs(0)), 6), jnp.ones((2, 8, 10, 6))
    assert count_flops(layer, x) == 2 * (2 * 16 * 20 * 6) * 4 * 6
