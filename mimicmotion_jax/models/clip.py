"""CLIP image encoder with projection (transformers `CLIPVisionModelWithProjection`) and its preprocessing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.models.attention import dot_product_attention
from mimicmotion_jax.models.config import CLIPConfig
from mimicmotion_jax.models.convolutions import Conv
from mimicmotion_jax.models.layers import Init, LayerNorm, Linear, gelu, join_heads, project_heads

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@jaxtyped(typechecker=beartype)
def preprocess(image: Float[Array, "b height width 3"], size: int) -> Float[Array, "b {size} {size} 3"]:
    """Resize and normalise an image as SVD does for CLIP: Gaussian blur, bicubic resize without crop, mean and std.

    Args:
        image: pixels in [-1, 1].
        size: height and width of the result, 224 for ViT-H.

    Returns:
        Normalised pixels, float32.
    """
    rows = _resize_matrix(image.shape[1], size)
    columns = _resize_matrix(image.shape[2], size)
    image = jnp.einsum("yh,bhwc,xw->byxc", rows, image.astype(jnp.float32), columns, precision="highest")
    return ((image + 1) / 2 - jnp.array(_MEAN)) / jnp.array(_STD)


@functools.cache
def _resize_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Blur and bicubic interpolation along one axis as a single matrix: both are linear and separable."""
    return (_bicubic_matrix(source, target) @ _blur_matrix(source, source / target)).astype(np.float32)


def _blur_matrix(source: int, factor: float) -> Float[np.ndarray, "source source"]:
    """Gaussian blur with standard deviation (factor - 1) / 2, about four deviations wide, mirrored at the borders."""
    sigma = max((factor - 1) / 2, 0.001)
    size = int(max(4 * sigma, 3))
    size += 1 - size % 2
    offsets = np.arange(size) - size // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    matrix = np.zeros((source, source))
    for offset, weight in zip(offsets, kernel, strict=True):
        index = np.abs(np.arange(source) + offset)
        index = np.where(index >= source, 2 * (source - 1) - index, index)
        np.add.at(matrix, (np.arange(source), index), weight)
    return matrix


def _bicubic_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """Keys' cubic convolution with a = -0.75 and aligned corners; the border is repeated."""
    position = np.arange(target) * (source - 1) / max(target - 1, 1)
    base = np.floor(position).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        distance = np.abs(position - base - tap)
        a = -0.75
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
        np.add.at(matrix, (np.arange(target), np.clip(base + tap, 0, source - 1)), weight)
    return matrix


class Attention(nnx.Module):
    """Multi-head self-attention with biases (transformers `CLIPAttention`)."""

    def __init__(self, init: Init, config: CLIPConfig):
        self.heads = config.num_attention_heads
        width = config.hidden_size
        self.q_proj = Linear(init, width, width)
        self.k_proj = Linear(init, width, width)
        self.v_proj = Linear(init, width, width)
        self.out_proj = Linear(init, width, width)

    def __call__(self, x: Float[Array, "b tokens c"]) -> Float[Array, "b tokens c"]:
        q, k, v = (project_heads(linear, x, self.heads) for linear in (self.q_proj, self.k_proj, self.v_proj))
        return join_heads(self.out_proj, dot_product_attention(q, k, v))


class MLP(nnx.Module):
    """Two linear layers (transformers `CLIPMLP`)."""

    def __init__(self, init: Init, config: CLIPConfig):
        self.quick = config.hidden_act == "quick_gelu"
        self.fc1 = Linear(init, config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(init, config.intermediate_size, config.hidden_size)

    def __call__(self, x: Float[Array, "b tokens c"]) -> Float[Array, "b tokens c"]:
        x = self.fc1(x)
        return self.fc2(x * jax.nn.sigmoid(1.702 * x) if self.quick else gelu(x))


class EncoderLayer(nnx.Module):
    """Pre-norm transformer layer (transformers `CLIPEncoderLayer`)."""

    def __init__(self, init: Init, config: CLIPConfig):
        self.layer_norm1 = LayerNorm(init, config.hidden_size, epsilon=config.layer_norm_eps)
        self.self_attn = Attention(init, config)
        self.layer_norm2 = LayerNorm(init, config.hidden_size, epsilon=config.layer_norm_eps)
        self.mlp = MLP(init, config)

    def __call__(self, x: Float[Array, "b tokens c"]) -> Float[Array, "b tokens c"]:
        x += self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nnx.Module):
    """Stack of transformer layers (transformers `CLIPEncoder`)."""

    def __init__(self, init: Init, config: CLIPConfig):
        self.layers = nnx.List([EncoderLayer(init, config) for _ in range(config.num_hidden_layers)])

    def __call__(self, x: Float[Array, "b tokens c"]) -> Float[Array, "b tokens c"]:
        for layer in self.layers:
            x = layer(x)
        return x


class Embeddings(nnx.Module):
    """Embeddings of class token, patches and positions (transformers `CLIPVisionEmbeddings`)."""

    def __init__(self, init: Init, config: CLIPConfig):
        width = config.hidden_size
        patches = (config.image_size // config.patch_size) ** 2
        normal = nnx.initializers.normal(0.02)
        self.class_embedding = nnx.Param(normal(init.rngs.params(), (width,), init.param_dtype))
        self.patch_embedding = Conv(
            init, config.num_channels, width, config.patch_size, config.patch_size, use_bias=False
        )
        self.position_embedding = nnx.Embed(patches + 1, width, param_dtype=init.param_dtype, rngs=init.rngs)

    def __call__(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b tokens c"]:
        x = rearrange(self.patch_embedding(pixels), "b h w c -> b (h w) c")
        first = jnp.broadcast_to(self.class_embedding[...], (x.shape[0], 1, x.shape[-1]))
        return jnp.concatenate([first, x], axis=1) + self.position_embedding.embedding[...]


class VisionTransformer(nnx.Module):
    """Encoder up to the normalised class token (transformers `CLIPVisionTransformer`)."""

    def __init__(self, init: Init, config: CLIPConfig):
        self.embeddings = Embeddings(init, config)
        self.pre_layrnorm = LayerNorm(init, config.hidden_size, epsilon=config.layer_norm_eps)
        self.encoder = Encoder(init, config)
        self.post_layernorm = LayerNorm(init, config.hidden_size, epsilon=config.layer_norm_eps)

    def __call__(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b c"]:
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return self.post_layernorm(x[:, 0])


class CLIPImageEncoder(nnx.Module):
    """CLIP image encoder; the embedding is the projected class token."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs, param_dtype: jnp.dtype = jnp.float32):
        init = Init(rngs, param_dtype)
        self.config = config
        self.vision_model = VisionTransformer(init, config)
        self.visual_projection = Linear(init, config.hidden_size, config.projection_dim, use_bias=False)

    @jaxtyped(typechecker=beartype)
    def __call__(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b d"]:
        """Embed pixels normalised by `preprocess`."""
        return self.visual_projection(self.vision_model(pixels.astype(self.visual_projection.kernel.dtype)))
