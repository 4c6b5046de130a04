"""Layers of the metric networks: convolution, and batch norm with stored statistics, channels last.

These networks are never trained here: their parameters come from files, and a score must not depend on the device that
computed it. So everything is float32, and products use full precision (by default TPUs and recent GPUs round the
factors).
"""

import jax
from flax import nnx


class Conv(nnx.Conv):
    """Convolution in 2 or 3 dimensions, in full float32 precision.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: kernel size along every axis.
        stride: stride along every axis.
        padding: zeros at both ends of every axis, or "SAME" for TensorFlow's padding (the odd zero at the end).
        use_bias: add a bias.
        rngs: random initial values, which a file replaces.
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
    """Batch norm with the stored mean and variance (PyTorch `BatchNorm3d` in evaluation)."""

    def __init__(self, channels: int, epsilon: float, *, rngs: nnx.Rngs):
        super().__init__(channels, use_running_average=True, epsilon=epsilon, rngs=rngs)
