"""Scaled dot-product attention: the one place that decides how it is computed.

long sequences on TPU       Pallas flash kernel: scores never leave the chip's fast memory
half precision on NVIDIA    cuDNN's flash kernel
CPU                         some heads or queries at a time, so that their scores fit the caches
everything else             scores in memory, in blocks of queries if they are large: float32 on GPU, the VAE's single
                            wide head

On both accelerators several short sequences are packed into one, masked from each other: temporal attention has 16
frames at thousands of positions.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from beartype import beartype
from einops import rearrange
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.models import cudnn
from mimicmotion_jax.models.execution import DEFAULT, Attend, Execution

_MAX_SCORES = 2**26  # scores computed at a time (2^26 float32 are 256 MiB)
_CACHED_SCORES = 2**21  # on a CPU, which reads and writes scores several times: 8 MiB fit its caches
_LONG = 512  # tokens of a sequence from which the TPU kernel is used; the break-even point has not been measured
_TPU_BLOCKS = (1024, 768, 512, 384, 256)  # multiples of the 128 lanes of a vector register
_TILE = 128  # rows of a TPU's matrix unit and of cuDNN's blocks: short sequences are packed to this length
_TPU_TILE = 2**18  # elements of queries, keys or values in fast memory at a time


@jaxtyped(typechecker=beartype)
def dot_product_attention(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    execution: Execution = DEFAULT,
) -> Float[Array, "batch queries heads dim"]:
    """Compute softmax(Q K^T / sqrt(dim)) V, the softmax in float32, in bounded memory for any number of queries.

    The backward pass recomputes the scores, so that its memory is bounded as well.

    Args:
        query: queries, any float dtype.
        key: keys of the same dtype.
        value: values of the same dtype.
        execution: devices to compute on, and how `batch` is sharded over them.

    Returns:
        Weighted values in the dtype of `value`.
    """
    if execution.platform == "cpu":
        return execution.per_device(_in_caches)(query, key, value)
    num_packed = _num_packed(query.shape, key.shape, execution.num_devices)
    if execution.platform == "tpu":
        if blocks := _tpu_blocks(query.shape, key.shape):
            return execution.per_device(functools.partial(_tpu_flash, blocks=blocks))(query, key, value)
        if num_packed > 1:
            return execution.per_device(functools.partial(_packed, num_packed=num_packed))(query, key, value)
    batch, queries, keys = query.shape[0], num_packed * query.shape[1], num_packed * key.shape[1]
    if execution.cudnn_attention and cudnn.supports(
        query, batch // (num_packed * execution.num_devices), queries, keys
    ):
        return execution.per_device(functools.partial(_cudnn, num_packed=num_packed))(query, key, value)
    return _in_blocks(jax.nn.dot_product_attention, query, key, value, _MAX_SCORES * execution.num_devices)


def _num_packed(query: tuple[int, ...], key: tuple[int, ...], num_devices: int) -> int:
    """Number of sequences to pack into one so that they fill a tile; 1 for long sequences."""
    batch, tokens, *_ = query
    if tokens != key[1] or tokens > _TILE // 2:
        return 1
    limit = _TILE // tokens
    # cuDNN needs even lengths, so sequences of odd length are packed in even numbers.
    return math.gcd(batch // num_devices, limit - limit % 2 if tokens % 2 else limit)


def _in_caches(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
) -> Float[Array, "batch queries heads dim"]:
    """Attend in chunks of heads, or in blocks of one head's queries, so that scores stay below `_CACHED_SCORES`."""
    heads = query.shape[2]
    qkv = tuple(rearrange(x, "b t h d -> (b h) t d") for x in (query, key, value))
    total, limit = len(qkv[0]), max(1, _CACHED_SCORES // (query.shape[1] * key.shape[1]))
    chunk_size = next(size for size in range(min(total, limit), 0, -1) if total % size == 0)

    def attend(qkv: tuple[Array, ...]) -> Float[Array, "chunk queries dim"]:
        q, k, v = qkv
        return _in_blocks(_normalised_last, q, k, v, _CACHED_SCORES)

    if chunk_size == total:
        attended = attend(qkv)
    else:
        chunks = tuple(rearrange(x, "(n chunk) t d -> n chunk t d", chunk=chunk_size) for x in qkv)
        attended = rearrange(jax.lax.map(jax.checkpoint(attend), chunks), "n chunk t d -> (n chunk) t d")
    return rearrange(attended, "(b h) t d -> b t h d", h=heads)


def _normalised_last(
    query: Float[Array, "heads queries dim"],
    key: Float[Array, "heads keys dim"],
    value: Float[Array, "heads keys dim"],
) -> Float[Array, "heads queries dim"]:
    """Attend and divide by the sums of weights at the end: there are fewer results than weights."""
    scores = jnp.einsum("nqd,nkd->nqk", query, key, preferred_element_type=jnp.float32)
    largest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp((scores - largest) / math.sqrt(query.shape[-1]))
    attended = jnp.einsum("nqk,nkd->nqd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (attended / weights.sum(-1, keepdims=True)).astype(value.dtype)


def _in_blocks(
    attend: Attend,
    query: Float[Array, "batch queries *heads dim"],
    key: Float[Array, "batch keys *heads dim"],
    value: Float[Array, "batch keys *heads dim"],
    max_scores: int,
) -> Float[Array, "batch queries *heads dim"]:
    """Apply `attend` to blocks of queries so small that at most `max_scores` scores exist at a time."""
    queries, scores = query.shape[1], math.prod(query.shape[:-1]) * key.shape[1]
    blocks = 1
    while scores // blocks > max_scores and blocks < queries:
        blocks *= 2
    if blocks == 1:
        return attend(query, key, value)
    padding = [(0, 0), (0, -queries % blocks), *[(0, 0)] * (query.ndim - 2)]
    query = jnp.pad(query, padding)  # the results of the padding are cut off below

    @jax.checkpoint
    def attend_block(block: Float[Array, "batch block *heads dim"]) -> Float[Array, "batch block *heads dim"]:
        return attend(block, key, value)

    out = jax.lax.map(attend_block, rearrange(query, "b (n q) ... -> n b q ...", n=blocks))
    return rearrange(out, "n b q ... -> b (n q) ...")[:, :queries]


def _packed(
    query: Float[Array, "batch tokens heads dim"],
    key: Float[Array, "batch tokens heads dim"],
    value: Float[Array, "batch tokens heads dim"],
    num_packed: int,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "batch tokens heads dim"]:
    """Pack `num_packed` sequences into one, masked from each other.

    On a TPU the product of 16 x 64 with 64 x 16 takes as long as that of 128 x 64 with 64 x 128, and its scores take as
    much memory.
    """
    if num_packed == 1:
        return jax.nn.dot_product_attention(query, key, value, implementation=implementation)
    sequence = jnp.arange(num_packed * query.shape[1]) // query.shape[1]
    q, k, v = (rearrange(x, "(n s) t h d -> n (s t) h d", s=num_packed) for x in (query, key, value))
    mask = (sequence[:, None] == sequence)[None, None]
    attended = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)
    return rearrange(attended, "n (s t) h d -> (n s) t h d", s=num_packed)


def _cudnn(
    query: Float[Array, "batch tokens heads dim"],
    key: Float[Array, "batch tokens heads dim"],
    value: Float[Array, "batch tokens heads dim"],
    num_packed: int,
) -> Float[Array, "batch tokens heads dim"]:
    """Attend with cuDNN; the gradients of packed sequences are computed one sequence at a time in plain XLA.

    The backward kernel would sum a gradient of the mask over all sequences, which nothing needs and cards before Hopper
    may reject.
    """
    if num_packed == 1:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")

    @jax.custom_vjp
    def attend(*qkv: Float[Array, "batch tokens heads dim"]) -> Float[Array, "batch tokens heads dim"]:
        query, key, value = qkv
        return _packed(query, key, value, num_packed, "cudnn")

    def backward(qkv: tuple[Array, ...], gradient: Float[Array, "batch tokens heads dim"]) -> tuple[Array, ...]:
        return jax.vjp(jax.nn.dot_product_attention, *qkv)[1](gradient)

    attend.defvjp(lambda *qkv: (attend(*qkv), qkv), backward)
    return attend(query, key, value)


def _tpu_blocks(query: tuple[int, ...], key: tuple[int, ...]) -> dict[str, int] | None:
    """Block sizes of the TPU kernel: the largest that divide queries and keys and fit; None if it cannot be used."""
    *_, dim = query

    def largest(tokens: int) -> int | None:
        fitting = (size for size in _TPU_BLOCKS if tokens % size == 0 and size * max(dim, 128) <= _TPU_TILE)
        return next(fitting, None)

    q, k = largest(query[1]), largest(key[1])
    if min(query[1], key[1]) < _LONG or q is None or k is None or (dim > 128 and dim % 128):
        return None
    forward = {"block_q": q, "block_k_major": k, "block_k": k, "block_b": 1}
    backward = {"block_q_major_dkv": q, "block_k_major_dkv": k, "block_k_dkv": k, "block_q_dkv": q}
    return forward | backward | {"block_k_major_dq": k, "block_k_dq": k, "block_q_dq": q}


def _tpu_flash(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    blocks: dict[str, int],
) -> Float[Array, "batch queries heads dim"]:
    # Imported here because it is experimental in jax: other devices do not depend on it.
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, flash_attention

    q, k, v = (rearrange(x, "b t h d -> b h t d") for x in (query, key, value))
    attended = flash_attention(q, k, v, sm_scale=query.shape[-1] ** -0.5, block_sizes=BlockSizes(**blocks))
    return rearrange(attended, "b h t d -> b t h d")
