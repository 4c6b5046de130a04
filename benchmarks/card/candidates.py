"""Other ways to write a layer, put in the place of the present one while a program is traced."""

import contextlib
import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

from card.results import Skipped
from mimicmotion_jax.models import attention, convolutions, layers, parts, transformer
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.sharding import TPU_PART_SIZE

Patch = Callable[[], contextlib.AbstractContextManager[Any]]
_norm = layers.GroupNorm.__call__


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Another way to write a layer.

    Attributes:
        blocks: kinds of block that have such a layer: "unet resnet", "unet transformer", "vae resnet".
        patch: context in which programs are traced.
        compiler: options of XLA for the program.
        layer: what it replaces; of the candidates for one layer, only one can be combined with those for others.
    """

    blocks: tuple[str, ...]
    patch: Patch = contextlib.nullcontext
    compiler: tuple[tuple[str, Any], ...] = ()
    layer: str = ""


def combine(ways: Iterable[Candidate]) -> Candidate:
    """All of these at once."""
    ways = list(ways)

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for way in ways:
                stack.enter_context(way.patch())
            yield

    return Candidate((), patch, tuple(option for way in ways for option in way.compiler))


# Temporal convolutions: [B, F, P, C] with a kernel [3, C, D].


def per_position(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve the frames of each position."""
    batch, frames, positions, channels = x.shape
    rows = x.transpose(0, 2, 1, 3).reshape(batch * positions, frames, channels)
    out = jax.lax.conv_general_dilated(rows, kernel, (1,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC"))
    return out.reshape(batch, positions, frames, -1).transpose(0, 2, 1, 3)


def three_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply three shifted copies."""
    padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)])
    first, second, third = (padded[:, tap : tap + x.shape[1]] @ kernel[tap] for tap in range(3))
    return first + second + third


def one_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Join three shifted copies along the channels, and multiply once."""
    padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)])
    joined = jnp.concatenate([padded[:, tap : tap + x.shape[1]] for tap in range(3)], axis=-1)
    return joined @ kernel.reshape(-1, kernel.shape[-1])


def convolution_2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve over (frames, positions) with a kernel of one position."""
    padding, numbers = ((1, 1), (0, 0)), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel[:, None], (1, 1), padding, dimension_numbers=numbers)


def _temporal(convolve: Callable[[jax.Array, jax.Array], jax.Array]) -> Patch:
    def call(self: convolutions.TemporalConv, x: jax.Array, _: Execution = DEFAULT, weight: Any = 1.0) -> jax.Array:
        flat = x.reshape(*x.shape[:2], -1, x.shape[-1])
        kernel, bias = ((weight * array[...]).astype(x.dtype) for array in (self.kernel, self.bias))
        return convolve(flat, kernel).reshape(*x.shape[:-1], -1) + bias

    return lambda: mock.patch.object(convolutions.TemporalConv, "__call__", call)


# Upsampling.


def _copies(self: convolutions.Upsample, x: jax.Array, execution: Execution) -> jax.Array:
    return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2))


def _upsample(platform: str) -> Patch:
    """Upsample as on another platform."""
    present = convolutions.Upsample.__call__

    def call(self: convolutions.Upsample, x: jax.Array, execution: Execution) -> jax.Array:
        return present(self, x, dataclasses.replace(execution, platform=platform))

    return _replace(convolutions.Upsample, "__call__", call)


# Feed-forward, norms, projections.


def _one_geglu(self: transformer.FeedForward, x: jax.Array, _: Execution) -> jax.Array:
    value, gate = jnp.split(self.proj_in(x), 2, axis=-1)
    return self.proj_out(value * transformer.gelu(gate))


def _tokamax_geglu(self: transformer.FeedForward, x: jax.Array, _: Execution) -> jax.Array:
    import tokamax

    # Without the biases, which its kernel does not have: for the time only, the result differs.
    value, gate = jnp.split(self.proj_in.kernel[...], 2, axis=-1)
    return self.proj_out(tokamax.gated_linear_unit(x, (gate, value), activation=transformer.gelu))


def require_hopper() -> None:
    """Skip a row where there is no Hopper card."""
    capability = getattr(jax.devices()[0], "compute_capability", None)
    if capability != "9.0":
        raise Skipped("needs a Hopper card")


def _tokamax_layer_norm(self: layers.LayerNorm, x: jax.Array, _: Execution = DEFAULT) -> jax.Array:
    import tokamax

    return tokamax.layer_norm(x, self.scale[...], self.bias[...], epsilon=self.epsilon)


def _norm_of_flax(self: layers.GroupNorm, x: jax.Array, shift: Any = 0) -> jax.Array:
    return nnx.GroupNorm.__call__(self, x + shift)


def _layer_norm_of_flax(self: layers.LayerNorm, x: jax.Array, _: Execution = DEFAULT) -> jax.Array:
    return nnx.LayerNorm.__call__(self, x)


def _added_before(self: layers.GroupNorm, x: jax.Array, shift: Any = 0) -> jax.Array:
    return _norm(self, x + shift)


def _joined_qkv(self: layers.SelfAttention, x: jax.Array, execution: Execution = DEFAULT) -> jax.Array:
    projections = (self.to_q, self.to_k, self.to_v)
    kernel = jnp.concatenate([linear.kernel[...] for linear in projections], axis=-1)
    joined = (x @ kernel).reshape(*x.shape[:2], 3, self.heads, -1)
    q, k, v = (execution.by_sequence(joined[:, :, i]) for i in range(3))
    return layers.join_heads(self.to_out, layers.dot_product_attention(q, k, v, execution))


# Attention: queries, keys and values [N, tokens, heads, dim].


def _by_xla(query: jax.Array, key: jax.Array, value: jax.Array, execution: Execution = DEFAULT) -> jax.Array:
    without = dataclasses.replace(execution, cudnn_attention=False)
    return attention.dot_product_attention(query, key, value, without)


def _short(by: Callable[..., jax.Array]) -> Patch:
    """Attend `by` another function along the frames, as before elsewhere."""

    def call(query: jax.Array, key: jax.Array, value: jax.Array, execution: Execution = DEFAULT) -> jax.Array:
        short = query.shape[1] <= attention._TILE // 2
        return by(query, key, value) if short else attention.dot_product_attention(query, key, value, execution)

    return lambda: mock.patch.object(layers, "dot_product_attention", call)


def _packed_by_four(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    on_card = jax.default_backend() == "gpu" and query.dtype.itemsize == 2
    return attention._packed(query, key, value, 4, "cudnn" if on_card else "xla")


def _tokamax_attention(query: jax.Array, key: jax.Array, value: jax.Array, execution: Execution = DEFAULT) -> jax.Array:
    import tokamax

    if query.shape[1] <= attention._TILE // 2:
        return attention.dot_product_attention(query, key, value, execution)
    return tokamax.dot_product_attention(query, key, value)


def _pallas_attention(keys: int) -> Patch:
    """Attend with the example kernel of jax for Hopper, `keys` keys at a time."""

    def call(query: jax.Array, key: jax.Array, value: jax.Array, execution: Execution = DEFAULT) -> jax.Array:
        from jax.experimental.pallas.ops.gpu import attention_mgpu

        require_hopper()
        tokens, _, dim = query.shape[1:]
        if tokens < 1024 or tokens % max(keys, 128) or dim % 64:
            return attention.dot_product_attention(query, key, value, execution)
        blocks = attention_mgpu.TuningConfig(block_q=64, block_kv=keys, max_concurrent_steps=2)
        # It writes its result through a buffer of float16, whatever the inputs are.
        q, k, v = (x.astype(jnp.float16) for x in (query * dim**-0.5, key, value))
        return attention_mgpu.attention(q, k, v, blocks).astype(query.dtype)

    return _replace(layers, "dot_product_attention", call)


def _splash(query: jax.Array, key: jax.Array, value: jax.Array, execution: Execution = DEFAULT) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    tokens, heads, dim = query.shape[1:]
    if execution.platform != "tpu" or tokens % 128 or tokens < attention._LONG:
        return attention.dot_product_attention(query, key, value, execution)
    mask = splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask((tokens, tokens))] * heads)
    kernel = splash_attention_kernel.make_splash_mha_single_device(mask)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (query * dim**-0.5, key, value))
    return jax.vmap(kernel)(q, k, v).transpose(0, 2, 1, 3)


def _replace(owner: Any, name: str, new: Any, package: str | None = None) -> Patch:
    """Put `new` in the place of an attribute; a package that is missing skips the row."""

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        if package and importlib.util.find_spec(package) is None:
            raise Skipped(f"needs {package}, not installed here")
        with mock.patch.object(owner, name, new):
            yield

    return patch


def _parts(part_size: int | None) -> Patch:
    """Transformers in parts of other sizes, or at once."""

    def in_parts(*args: Any, **sizes: Any) -> jax.Array:
        *others, execution = args
        return parts.in_parts(*others, dataclasses.replace(execution, part_size=part_size), **sizes)

    return _replace(transformer, "in_parts", in_parts)


_RESNETS = ("unet resnet", "vae resnet")
_BOTH = (*_RESNETS, "unet transformer")
_TRANSFORMER = ("unet transformer",)
_UPSAMPLE = ("upsample",)
_attention = functools.partial(_replace, layers, "dot_product_attention")

LAYERS: dict[str, Candidate] = {
    "temporal convolution as one 2-D convolution": Candidate(
        _RESNETS, _temporal(convolution_2d), layer="temporal convolution"
    ),
    "temporal convolution per position": Candidate(_RESNETS, _temporal(per_position), layer="temporal convolution"),
    "temporal convolution as three products": Candidate(
        _RESNETS, _temporal(three_products), layer="temporal convolution"
    ),
    "temporal convolution as one product": Candidate(_RESNETS, _temporal(one_product), layer="temporal convolution"),
    "upsampling of copies": Candidate(
        _UPSAMPLE, _replace(convolutions.Upsample, "__call__", _copies), layer="upsample"
    ),
    "upsampling in phases": Candidate(_UPSAMPLE, _upsample("any"), layer="upsample"),
    "upsampling dilated": Candidate(_UPSAMPLE, _upsample("tpu"), layer="upsample"),
    "GEGLU as one product": Candidate(
        _TRANSFORMER, _replace(transformer.FeedForward, "__call__", _one_geglu), layer="feed-forward"
    ),
    "queries, keys and values in one product": Candidate(
        _TRANSFORMER, _replace(layers.SelfAttention, "__call__", _joined_qkv), layer="queries"
    ),
    "temporal attention not packed": Candidate(
        _TRANSFORMER, _short(jax.nn.dot_product_attention), layer="temporal attention"
    ),
    "temporal attention packed by four": Candidate(_TRANSFORMER, _short(_packed_by_four), layer="temporal attention"),
    "embedding added before the norm": Candidate(
        ("unet resnet",), _replace(layers.GroupNorm, "__call__", _added_before), layer="norm"
    ),
    "group norm of flax": Candidate(_BOTH, _replace(layers.GroupNorm, "__call__", _norm_of_flax), layer="norm"),
    "layer norm of flax": Candidate(
        _TRANSFORMER, _replace(layers.LayerNorm, "__call__", _layer_norm_of_flax), layer="layer norm"
    ),
}
"""Candidates for every device."""

GPU: dict[str, Candidate] = {
    "GEGLU as two products": Candidate(
        _TRANSFORMER, _replace(transformer, "supports", lambda *_: False), layer="feed-forward"
    ),
    "attention by Pallas, 128 keys": Candidate(_TRANSFORMER, _pallas_attention(128), layer="attention"),
    "attention by Pallas, 256 keys": Candidate(_TRANSFORMER, _pallas_attention(256), layer="attention"),
    "attention by XLA": Candidate(_TRANSFORMER, _attention(_by_xla), layer="attention"),
    "attention by tokamax": Candidate(_TRANSFORMER, _attention(_tokamax_attention, "tokamax"), layer="attention"),
    "layer norm by tokamax": Candidate(
        _TRANSFORMER, _replace(layers.LayerNorm, "__call__", _tokamax_layer_norm, "tokamax"), layer="layer norm"
    ),
    "GEGLU by tokamax, without biases": Candidate(
        _TRANSFORMER, _replace(transformer.FeedForward, "__call__", _tokamax_geglu, "tokamax"), layer="feed-forward"
    ),
}
"""Candidates for NVIDIA's cards, most promising first."""

TPU: dict[str, Candidate] = {
    "transformers at once": Candidate(_TRANSFORMER, _parts(None), layer="parts"),
    "transformers in parts of half the size": Candidate(_TRANSFORMER, _parts(TPU_PART_SIZE // 2), layer="parts"),
    "transformers in parts of twice the size": Candidate(_TRANSFORMER, _parts(2 * TPU_PART_SIZE), layer="parts"),
    "splash attention": Candidate(_TRANSFORMER, _attention(_splash), layer="attention"),
}
"""Candidates for TPUs."""


def _option(name: str, value: Any) -> Candidate:
    return Candidate(_BOTH, compiler=((f"xla_gpu_{name}", value),), layer=name)


COMPILER: dict[str, Candidate] = {
    "XLA with cuBLASLt": _option("enable_cublaslt", True),
    "XLA with fused convolutions": _option("experimental_enable_conv_fusion", True),
    "XLA with cuDNN's runtime fusion": _option("use_runtime_fusion", True),
    "XLA with cuDNN's fusions of products": _option("cudnn_gemm_fusion_level", 2),
    "XLA with tuned fusions": _option("experimental_enable_fusion_autotuner", True),
    "XLA with Triton's fusions": _option("experimental_enable_triton_heroless_priority_fusion", True),
    "XLA with dependent launches": _option("enable_pdl", True),
    "XLA without Triton's products": _option("enable_triton_gemm", False),
    "XLA without command buffers": _option("enable_command_buffer", ""),
    "XLA with exhaustive tiling": _option("exhaustive_tiling_search", True),
}
"""Options of XLA's compiler for GPUs, for the whole program."""
