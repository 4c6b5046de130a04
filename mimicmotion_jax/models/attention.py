"""Scaled dot-product attention: the one place that decides how it is computed."""

import jax
import jax.numpy as jnp
from beartype import beartype
from einops import rearrange
from jaxtyping import Array, Float, jaxtyped

# Scores of more elements than this are computed a block of queries at a time (2^26 float32 are 256 MiB).
_MAX_SCORES = 2**26


@jaxtyped(typechecker=beartype)
def dot_product_attention(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    num_devices: int = 1,
) -> Float[Array, "batch queries heads dim"]:
    """softmax(Q K^T / sqrt(dim)) V, softmax in float32, in memory that stays bounded for any number of queries.

    The backward pass recomputes the scores of a block, so that its memory is bounded as well.

    Args:
        query: heads apart.
        key: likewise.
        value: likewise.
        num_devices: over how many devices `batch` is spread.
    """
    batch, queries, heads, _ = query.shape
    scores = batch * heads * queries * key.shape[1] // num_devices
    blocks = 1
    while scores // blocks > _MAX_SCORES and queries % (2 * blocks) == 0:
        blocks *= 2
    if blocks == 1:
        return jax.nn.dot_product_attention(query, key, value)

    @jax.checkpoint
    def attend(block: Float[Array, "batch block heads dim"]) -> Float[Array, "batch block heads dim"]:
        return jax.nn.dot_product_attention(block, key, value)

    out = jax.lax.map(attend, rearrange(query, "b (n q) h d -> n b q h d", n=blocks))
    return rearrange(out, "n b q h d -> b (n q) h d")


def split_heads(x: Float[Array, "... channels"], heads: int) -> Float[Array, "... heads dim"]:
    """[..., heads * dim] -> [..., heads, dim]."""
    return jnp.reshape(x, (*x.shape[:-1], heads, -1))


def merge_heads(x: Float[Array, "... heads dim"]) -> Float[Array, "... channels"]:
    """[..., heads, dim] -> [..., heads * dim]."""
    return jnp.reshape(x, (*x.shape[:-2], -1))
