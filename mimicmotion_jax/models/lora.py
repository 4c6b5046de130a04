"""Low-rank adapters (LoRA, Hu et al. 2021): kept apart beside linear layers, or merged into kernels of any layer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.models.layers import Linear


class LowRank(NamedTuple):
    """Two factors whose product is added to a layer's kernel."""

    a: Any
    """Array or shape [..., in, rank], its axes before the last as the kernel's."""
    b: Any
    """Array or shape [rank, out]."""


class Adapter(nnx.LoRA):
    """Adapter of a linear layer: x -> scale x a b. flax's own has no scale."""

    def __init__(self, factors: LowRank, scale: float = 1.0):
        (cin, rank), (_, cout) = factors.a.shape, factors.b.shape
        super().__init__(
            *(cin, rank, cout),
            param_dtype=factors.a.dtype,
            a_initializer=lambda *_: factors.a,
            b_initializer=lambda *_: factors.b,
            rngs=nnx.Rngs(0),
        )
        self.scale = scale

    def __call__(self, x: Float[Array, "... cin"]) -> Float[Array, "... cout"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.scale * super().__call__(x)


def linear_layers(network: nnx.Module) -> dict[str, Linear]:
    """Linear layers of a network by dotted path."""
    return {path: layer for path, layer in _layers(network).items() if isinstance(layer, Linear)}


def attach_adapters(network: nnx.Module, factors: Mapping[str, LowRank], scale: float = 1.0) -> None:
    """Keep adapters apart: each linear layer named in `factors` adds the output of its own to that of earlier ones."""
    layers = linear_layers(network)
    for path, added in factors.items():
        earlier, weight = layers[path].lora, scale
        if isinstance(earlier, Adapter):
            own = LowRank(earlier.lora_a[...], earlier.lora_b[...])
            added, weight = combine([(own, earlier.scale), (added, scale)]), 1.0
        layers[path].lora = Adapter(added, weight)


def combine(parts: Sequence[tuple[LowRank, float]]) -> LowRank:
    """Factors of the weighted sum of several products: their ranks add up."""
    a = jnp.concatenate([factors.a for factors, _ in parts], axis=-1)
    return LowRank(a, jnp.concatenate([weight * factors.b for factors, weight in parts]))


def merge_adapters(network: nnx.Module, factors: Mapping[str, LowRank]) -> None:
    """Add the products of the factors to the kernels of layers by path, in float32, rounded to the kernels' dtype."""
    layers: dict[str, Any] = _layers(network)
    for path, (a, b) in factors.items():
        kernel = layers[path].kernel
        kernel.set_value(_merged(kernel[...], a, b))


@jax.jit
def _merged(kernel: Float[Array, "..."], a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    product = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")
    return (kernel.astype(jnp.float32) + product).astype(kernel.dtype)


def _layers(network: nnx.Module) -> dict[str, nnx.Module]:
    return {".".join(map(str, path)): layer for path, layer in nnx.iter_modules(network)}
