"""Layers that the metric networks share: convolution and batch norm with stored statistics, channels last.

These networks are never trained here: their parameters come from files, and a number must not depend on the device that
computed it. So everything is float32, and products are asked for in full precision (TPUs and recent GPUs round the
factors otherwise).
"""

import jax
from flax import nnx
from jaxtyping import Array, Float


class Conv(nnx.Conv):
    """Convolution in 2 or 3 dimensions, in full float32 precision.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: window, along every axis.
        stride: along every axis.
        padding: zeros at both ends of every axis, or "SAME" for TensorFlow's padding (the odd one at the end).
        use_bias: add a bias.
        rngs: of the initial values, which a file replaces.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | str = 0,
        *,
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            strides=stride,
            padding=padding,
            use_bias=use_bias,
            precision=jax.lax.Precision.HIGHEST,
            rngs=rngs,
        )


class BatchNorm(nnx.BatchNorm):
    """Batch norm by the stored mean and variance (PyTorch `BatchNorm3d` in evaluation)."""

    def __init__(self, channels: int, epsilon: float, *, rngs: nnx.Rngs):
        super().__init__(channels, use_running_average=True, epsilon=epsilon, rngs=rngs)


def max_pool(
    x: Float[Array, "n t h w c"], window: tuple[int, int, int], stride: tuple[int, int, int], padding: int | str
) -> Float[Array, "n t2 h2 w2 c"]:
    """Maximum over windows; what is padded (`padding` as in `Conv`) never wins."""
    return nnx.max_pool(x, window, stride, padding if isinstance(padding, str) else ((padding, padding),) * 3)
