"""Inception-I3D (Carreira and Zisserman, CVPR 2017), RGB stream; its 400 Kinetics logits are the features of FVD.

Attribute names are those of `i3d_pretrained_400.pt`, the PyTorch copy of DeepMind's weights.
"""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.metrics.layers import BatchNorm, Conv

CLASSES = 400
BATCH_NORM_EPSILON = 1e-3


class Unit3D(nnx.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.conv3d = Conv(in_channels, out_channels, (size,) * 3, stride, "SAME", rngs=rngs)
        self.bn = BatchNorm(out_channels, BATCH_NORM_EPSILON, rngs=rngs)

    def __call__(self, x: Float[Array, "n t h w cin"]) -> Float[Array, "n t2 h2 w2 cout"]:
        """Return non-negative features; with stride 2 at half the size, rounded up."""
        return nnx.relu(self.bn(self.conv3d(x)))


class Mixed(nnx.Module):
    """Four branches whose outputs are concatenated (PyTorch `InceptionModule`).

    Args:
        in_channels: channels of the input.
        branches: output channels of 1x1x1; 1x1x1, then 3x3x3; 1x1x1, then 3x3x3; pooling, then 1x1x1.
        rngs: random initial values, which a file replaces.
    """

    def __init__(self, in_channels: int, branches: tuple[int, int, int, int, int, int], *, rngs: nnx.Rngs):
        b0, b1a, b1b, b2a, b2b, b3b = branches
        self.b0 = Unit3D(in_channels, b0, 1, rngs=rngs)
        self.b1a = Unit3D(in_channels, b1a, 1, rngs=rngs)
        self.b1b = Unit3D(b1a, b1b, 3, rngs=rngs)
        self.b2a = Unit3D(in_channels, b2a, 1, rngs=rngs)
        self.b2b = Unit3D(b2a, b2b, 3, rngs=rngs)
        self.b3b = Unit3D(in_channels, b3b, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "n t h w cin"]) -> Float[Array, "n t h w cout"]:
        """Return non-negative features at the size of `x`, which must be non-negative too."""
        branches = (
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3b(_max_pool(x, (3, 3, 3), (1, 1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)


class I3D(nnx.Module):
    """Logits of the 400 Kinetics classes (PyTorch `InceptionI3d`).

    The original averages windows of 2 x 7 x 7 before the logits and logits over time; a clip of 16 frames of 224 x 224
    pixels leaves exactly 2 x 7 x 7 positions, so both are one mean over all positions.
    """

    input_size: ClassVar[int] = 224
    """Side of the input frames, in pixels."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.Conv3d_1a_7x7 = Unit3D(3, 64, 7, 2, rngs=rngs)
        self.Conv3d_2b_1x1 = Unit3D(64, 64, 1, rngs=rngs)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3, rngs=rngs)
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32), rngs=rngs)
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64), rngs=rngs)
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64), rngs=rngs)
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64), rngs=rngs)
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64), rngs=rngs)
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64), rngs=rngs)
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128), rngs=rngs)
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128), rngs=rngs)
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128), rngs=rngs)
        self.logits = nnx.Dict(conv3d=Conv(1024, CLASSES, (1, 1, 1), use_bias=True, rngs=rngs))

    def __call__(self, clips: Float[Array, "n t h w 3"]) -> Float[Array, "n 400"]:
        """Return the logits of clips of RGB frames, 0 to 255."""
        x = clips / 127.5 - 1
        x = _max_pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = _max_pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = _max_pool(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
        for mixed in (self.Mixed_4b, self.Mixed_4c, self.Mixed_4d, self.Mixed_4e, self.Mixed_4f):
            x = mixed(x)
        x = self.Mixed_5c(self.Mixed_5b(_max_pool(x, (2, 2, 2), (2, 2, 2))))
        return self.logits.conv3d(x.mean((1, 2, 3), keepdims=True))[:, 0, 0, 0]


def _max_pool(
    x: Float[Array, "n t h w c"], window: tuple[int, int, int], stride: tuple[int, int, int]
) -> Float[Array, "n t2 h2 w2 c"]:
    # The original pads with zeros. Everything pooled comes from a ReLU, so a padded zero never beats the values inside.
    return nnx.max_pool(x, window, stride, "SAME")
