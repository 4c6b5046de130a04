"""Scaled dot-product attention: the one place that decides how it is computed.

long sequences on TPU       Pallas flash kernel: scores never leave the chip's fast memory
half precision on NVIDIA    cuDNN's flash kernel
CPU                         as many heads or queries at a time as have scores that fit the caches
everything else             scores in memory, a block of queries at a time where they are many: float32 on GPU, the
                            VAE's single wide head

On both accelerators several short sequences make one, blind to each other: temporal attention, 16 frames at thousands
of positions.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from beartype import beartype
from einops import rearrange
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.models import cudnn
from mimicmotion_jax.models.execution import DEFAULT, Attend, Execution

# Scores of more elements than this are computed a block of queries at a time (2^26 float32 are 256 MiB).
_MAX_SCORES = 2**26
# A CPU writes and reads scores several times, faster in its caches than in memory: 8 MiB of them.
_CACHED_SCORES = 2**21
# Shorter sequences have few scores and are left to XLA; where the kernels begin to pay has not been measured.
_LONG = 512
_TPU_BLOCKS = (1024, 768, 512, 384, 256)  # multiples of the 128 lanes of a vector register
_TILE = 128  # rows of a TPU's matrix unit and of cuDNN's blocks: short sequences are joined to as many
_TPU_TILE = 2**18  # elements of queries, keys or values in fast memory at a time


def _products(count: int, tokens: int) -> Callable[[Sequence[tuple[int, ...]]], float]:
    """FLOPs of `count` matrix products of queries with keys, whose axis `tokens` these are, or of their size."""
    return lambda shapes: 2.0 * count * math.prod(shapes[0]) * shapes[1][tokens]


KERNEL_FLOPS = {
    "flash_attention": _products(2, tokens=2),
    "flash_mha_bwd_dq": _products(3, tokens=2),
    "flash_mha_bwd_dkv": _products(4, tokens=2),
    "__cudnn$fmhaSoftmaxBackward": _products(5, tokens=1),
    "__cudnn$fmhaScaleBiasSoftmaxBackward": _products(5, tokens=1),
    "__cudnn$fmhaSoftmax": _products(2, tokens=1),
    "__cudnn$fmhaScaleBiasSoftmax": _products(2, tokens=1),
}
"""What the kernels do, by the start of their names, for `compiled.compile_report`; backward, scores are computed anew.

The first that fits holds.
"""


@jaxtyped(typechecker=beartype)
def dot_product_attention(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    execution: Execution = DEFAULT,
) -> Float[Array, "batch queries heads dim"]:
    """softmax(Q K^T / sqrt(dim)) V, softmax in float32, in memory that stays bounded for any number of queries.

    The backward pass recomputes the scores, so that its memory is bounded as well.

    Args:
        query: heads apart.
        key: likewise.
        value: likewise.
        execution: for which devices, and how `batch` is spread over them.
    """
    if execution.platform == "cpu":
        return execution.per_device(_in_caches)(query, key, value)
    count = _joinable(query.shape, key.shape, execution.num_devices)
    if execution.platform == "tpu":
        if blocks := _tpu_blocks(query.shape, key.shape):
            return execution.per_device(functools.partial(_tpu_flash, blocks=blocks))(query, key, value)
        if count > 1:
            return execution.per_device(functools.partial(_joined, count=count))(query, key, value)
    sequences = query.shape[0] // (count * execution.num_devices)
    if execution.cudnn_attention and cudnn.takes(query, sequences, count * query.shape[1], count * key.shape[1]):
        return execution.per_device(functools.partial(_by_cudnn, count=count))(query, key, value)
    return _in_blocks(jax.nn.dot_product_attention, query, key, value, _MAX_SCORES * execution.num_devices)


def _joinable(query: tuple[int, ...], key: tuple[int, ...], num_devices: int) -> int:
    """How many sequences of a device fill a tile, where there are enough; 1 for long ones."""
    batch, tokens, *_ = query
    if tokens != key[1] or tokens > _TILE // 2:
        return 1
    most = _TILE // tokens
    # Odd numbers of tokens in pairs: cuDNN takes even ones.
    return math.gcd(batch // num_devices, most - most % 2 if tokens % 2 else most)


def _in_caches(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
) -> Float[Array, "batch queries heads dim"]:
    """A few heads at a time, or of one head a block of queries, so that scores stay below `_CACHED_SCORES`."""
    heads = query.shape[2]
    qkv = tuple(rearrange(x, "b t h d -> (b h) t d") for x in (query, key, value))
    count, most = len(qkv[0]), max(1, _CACHED_SCORES // (query.shape[1] * key.shape[1]))
    together = next(number for number in range(min(count, most), 0, -1) if count % number == 0)

    def attend(qkv: tuple[Array, ...]) -> Float[Array, "together queries dim"]:
        return _in_blocks(_normalised_last, *qkv, _CACHED_SCORES)

    if together == count:
        attended = attend(qkv)
    else:
        parts = tuple(rearrange(x, "(n together) t d -> n together t d", together=together) for x in qkv)
        attended = rearrange(jax.lax.map(jax.checkpoint(attend), parts), "n together t d -> (n together) t d")
    return rearrange(attended, "(b h) t d -> b t h d", h=heads)


def _normalised_last(
    query: Float[Array, "heads queries dim"],
    key: Float[Array, "heads keys dim"],
    value: Float[Array, "heads keys dim"],
) -> Float[Array, "heads queries dim"]:
    """The sums of weights divide their product with the values, of which there are fewer than weights."""
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
    most: int,
) -> Float[Array, "batch queries *heads dim"]:
    """Plain XLA; blocks of queries so small that there are at most so many scores at a time."""
    queries, scores = query.shape[1], math.prod(query.shape[:-1]) * key.shape[1]
    blocks = 1
    while scores // blocks > most and blocks < queries:
        blocks *= 2
    if blocks == 1:
        return attend(query, key, value)
    padding = [(0, 0), (0, -queries % blocks), *[(0, 0)] * (query.ndim - 2)]
    query = jnp.pad(query, padding)  # whose results are cut off again

    @jax.checkpoint
    def attend_block(block: Float[Array, "batch block *heads dim"]) -> Float[Array, "batch block *heads dim"]:
        return attend(block, key, value)

    out = jax.lax.map(attend_block, rearrange(query, "b (n q) ... -> n b q ...", n=blocks))
    return rearrange(out, "n b q ... -> b (n q) ...")[:, :queries]


def _joined(
    query: Float[Array, "batch tokens heads dim"],
    key: Float[Array, "batch tokens heads dim"],
    value: Float[Array, "batch tokens heads dim"],
    count: int,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "batch tokens heads dim"]:
    """`count` sequences in one, each seeing itself alone.

    A product of 16 x 64 with 64 x 16 takes a TPU as long as one of 128 x 64 with 64 x 128, and its scores take as much
    memory.
    """
    if count == 1:
        return jax.nn.dot_product_attention(query, key, value, implementation=implementation)
    sequence = jnp.arange(count * query.shape[1]) // query.shape[1]
    q, k, v = (rearrange(x, "(n count) t h d -> n (count t) h d", count=count) for x in (query, key, value))
    mask = (sequence[:, None] == sequence)[None, None]
    attended = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)
    return rearrange(attended, "n (count t) h d -> (n count) t h d", count=count)


def _by_cudnn(
    query: Float[Array, "batch tokens heads dim"],
    key: Float[Array, "batch tokens heads dim"],
    value: Float[Array, "batch tokens heads dim"],
    count: int,
) -> Float[Array, "batch tokens heads dim"]:
    """`_joined`, with the gradients of single sequences in plain XLA.

    The backward kernel would sum a gradient of the mask over all sequences, which nobody needs and cards before Hopper
    may refuse.
    """
    if count == 1:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")

    @jax.custom_vjp
    def attend(*qkv: Float[Array, "batch tokens heads dim"]) -> Float[Array, "batch tokens heads dim"]:
        return _joined(*qkv, count, "cudnn")

    def pull_back(qkv: tuple[Array, ...], gradient: Float[Array, "batch tokens heads dim"]) -> tuple[Array, ...]:
        return jax.vjp(jax.nn.dot_product_attention, *qkv)[1](gradient)

    attend.defvjp(lambda *qkv: (attend(*qkv), qkv), pull_back)
    return attend(query, key, value)


def _tpu_blocks(query: tuple[int, ...], key: tuple[int, ...]) -> dict[str, int] | None:
    """The largest blocks that divide queries and keys and fit; None for short ones and where the kernel takes none."""
    *_, dim = query
    if min(query[1], key[1]) < _LONG:
        return None
    largest = [
        next((size for size in _TPU_BLOCKS if tokens % size == 0 and size * max(dim, 128) <= _TPU_TILE), None)
        for tokens in (query[1], key[1])
    ]
    if None in largest or (dim > 128 and dim % 128):
        return None
    q, k = largest
    forward = {"block_q": q, "block_k_major": k, "block_k": k, "block_b": 1}
    backward = {"block_q_major_dkv": q, "block_k_major_dkv": k, "block_k_dkv": k, "block_q_dkv": q}
    return forward | backward | {"block_k_major_dq": k, "block_k_dq": k, "block_q_dq": q}


def _tpu_flash(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    blocks: dict[str, int],
) -> Float[Array, "batch queries heads dim"]:
    # Experimental in jax: where it is not needed, nothing hangs on its being there.
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, flash_attention

    q, k, v = (rearrange(x, "b t h d -> b h t d") for x in (query, key, value))
    attended = flash_attention(q, k, v, sm_scale=query.shape[-1] ** -0.5, block_sizes=BlockSizes(**blocks))
    return rearrange(attended, "b h t d -> b t h d")
