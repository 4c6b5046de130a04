"""Convolutions of the networks: in a frame, along the frames, and between resolutions.

Arrays are channels last. Each is computed in the way that is fastest on a platform (docs/performance.md).
"""

import itertools

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.layers import Init, init_kernel, value


class Conv(nnx.Conv):
    """Square 2-D convolution with PyTorch's explicit padding (`"SAME"` pads differently at stride 2)."""

    def __init__(
        self,
        init: Init,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | tuple[tuple[int, int], tuple[int, int]] = 0,
        *,
        use_bias: bool = True,
    ):
        super().__init__(
            in_channels,
            out_channels,
            (kernel, kernel),
            strides=(stride, stride),
            padding=((padding, padding),) * 2 if isinstance(padding, int) else padding,
            use_bias=use_bias,
            kernel_init=init_kernel,
            param_dtype=init.param_dtype,
            rngs=init.rngs,
        )


def _convolve(
    x: Float[Array, "n h w cin"],
    kernel: Float[Array, "y x cin cout"],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: int = 1,
) -> Float[Array, "n h2 w2 cout"]:
    """Convolve pictures between whose pixels there are `dilation` - 1 zeros."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, (dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _convolve_frames(x: Float[Array, "b f p cin"], kernel: Float[Array, "3 cin cout"]) -> Float[Array, "b f p cout"]:
    """Convolve over frames, as a 2-D convolution over frames and positions."""
    return _convolve(x, kernel[:, None], ((1, 1), (0, 0)))


@jax.custom_vjp
def _convolve_frames_own_gradient(
    x: Float[Array, "b f p cin"], kernel: Float[Array, "3 cin cout"]
) -> Float[Array, "b f p cout"]:
    return _convolve_frames(x, kernel)


def _frames_gradient(arrays: tuple[Array, Array], gradient: Float[Array, "b f p cout"]) -> tuple[Array, Array]:
    """Gradients of `_convolve_frames`: tap t joins output frame f and input frame f + t - 1."""
    x, kernel = arrays
    frames = x.shape[1]

    def tap(inputs: slice, outputs: slice) -> Float[Array, "cin cout"]:
        return jnp.einsum("bfpi,bfpo->io", x[:, inputs], gradient[:, outputs])

    before, now, after = slice(frames - 1), slice(frames), slice(1, frames)
    taps = tap(before, after), tap(now, now), tap(after, before)
    return _convolve_frames(gradient, kernel[::-1].swapaxes(1, 2)), jnp.stack(taps)


_convolve_frames_own_gradient.defvjp(
    lambda x, kernel: (_convolve_frames_own_gradient(x, kernel), (x, kernel)), _frames_gradient
)


class TemporalConv(nnx.Module):
    """Convolution (3, 1, 1) over frames, zero-padded.

    PyTorch: `nn.Conv3d(kernel_size=(3, 1, 1), padding=(1, 0, 0))`; kernel [3, in, out].

    Computed in the way that is fastest (docs/performance.md): as one 2-D convolution over frames and positions, the
    gradient of whose kernel is three matrix products except on NVIDIA, because XLA computes it slowly on CPUs; on TPUs
    as three products on shifted copies in the UNet, with its many channels and two branches, which XLA's partitioner
    splits well, and as a convolution per position in the VAE (`in_vae`).

    A `weight` multiplies the result, by way of the small kernel and bias.
    """

    def __init__(self, init: Init, in_channels: int, out_channels: int, *, in_vae: bool = False):
        self.kernel = nnx.Param(init_kernel(init.rngs.params(), (3, in_channels, out_channels), init.param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), init.param_dtype))
        self.in_vae = in_vae

    def __call__(
        self, x: Float[Array, "b f *p cin"], execution: Execution = DEFAULT, weight: Float[Array, "1"] | None = None
    ) -> Float[Array, "b f *p cout"]:
        kernel, bias = self.kernel[...], self.bias[...]
        if weight is not None:
            kernel, bias = ((weight * array.astype(jnp.float32)).astype(array.dtype) for array in (kernel, bias))
        if execution.platform == "tpu":
            out = (self._convolution if self.in_vae else self._products)(x, kernel)
        else:
            convolve = _convolve_frames if execution.platform == "cuda" else _convolve_frames_own_gradient
            out = convolve(x.reshape(*x.shape[:2], -1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)
        return out + bias

    @staticmethod
    def _products(x: Float[Array, "b f *p cin"], kernel: Float[Array, "3 cin cout"]) -> Float[Array, "b f *p cout"]:
        frames = x.shape[1]
        padded = jnp.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2))
        first, second, third = (padded[:, tap : tap + frames] @ kernel[tap] for tap in range(3))
        return first + second + third

    @staticmethod
    def _convolution(x: Float[Array, "b f *p cin"], kernel: Float[Array, "3 cin cout"]) -> Float[Array, "b f *p cout"]:
        batch = x.shape[0]
        by_position = einops.rearrange(x.reshape(*x.shape[:2], -1, x.shape[-1]), "b f p c -> (b p) f c")
        out = jax.lax.conv_general_dilated(
            by_position, kernel, (1,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return einops.rearrange(out, "(b p) f c -> b f p c", b=batch).reshape(*x.shape[:-1], -1)


class Downsample(nnx.Module):
    """Convolution of stride 2 (diffusers `Downsample2D`): the UNet's pads (1, 1), the VAE encoder's (0, 1)."""

    def __init__(self, init: Init, channels: int, padding: tuple[int, int]):
        self.conv = Conv(init, channels, channels, 3, stride=2, padding=(padding, padding))

    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n h2 w2 c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Nearest-neighbour upsampling by 2 and a convolution (diffusers `Upsample2D`).

    Weights that meet copies of the same pixel are summed first, so that 3x3 products in the large picture become 2x2
    products in the small one: 4/9 of the FLOPs, and the copies are never written.
    """

    def __init__(self, init: Init, channels: int):
        self.conv = Conv(init, channels, channels, 3, padding=1)

    def __call__(self, x: Float[Array, "*n h w c"], execution: Execution = DEFAULT) -> Float[Array, "*n h2 w2 c"]:
        frames = x.reshape(-1, *x.shape[-3:])
        # The TPU compiler interleaves pixels slowly, and leaves out the zeros of a dilated picture; others do not.
        upsample = self._dilated if execution.platform == "tpu" else self._in_phases
        out = upsample(frames, self._summed()) + value(self.conv.bias)
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    def _summed(self) -> Float[Array, "4 4 c c"]:
        """Kernel that does the same to a picture with zeros between its pixels as the layer's to one with copies."""
        kernel = value(self.conv.kernel)
        shifts = itertools.product(((0, 1), (1, 0)), repeat=2)
        copies = [jnp.pad(kernel.astype(jnp.float32), (*shift, (0, 0), (0, 0))) for shift in shifts]
        return sum(copies[1:], copies[0]).astype(kernel.dtype)

    @staticmethod
    def _dilated(x: Float[Array, "n h w c"], kernel: Float[Array, "4 4 c c"]) -> Float[Array, "n h2 w2 c"]:
        return _convolve(x, kernel, ((2, 2), (2, 2)), dilation=2)

    @staticmethod
    def _in_phases(x: Float[Array, "n h w c"], kernel: Float[Array, "4 4 c c"]) -> Float[Array, "n h2 w2 c"]:
        """Compute even and odd rows and columns by themselves."""

        def phase(row: int, column: int) -> Float[Array, "n h w c"]:
            return _convolve(x, kernel[row::2, column::2], ((1 - row, row), (1 - column, column)))

        phases = jnp.stack([jnp.stack([phase(row, column) for column in (0, 1)], axis=3) for row in (0, 1)], axis=2)
        return einops.rearrange(phases, "n h y w x c -> n (h y) (w x) c")
