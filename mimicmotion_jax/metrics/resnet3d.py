"""3D ResNet-50 (Hara, Kataoka and Satoh, CVPR 2018) trained on Kinetics; its pooled features are those of FID-VID.

Attribute names are those of `resnet-50-kinetics.pth`.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.metrics.layers import BatchNorm, Conv

BATCH_NORM_EPSILON = 1e-5
EXPANSION = 4
PIXEL_MEAN = np.array([114.7748, 107.7354, 99.4750], np.float32)
"""Mean colour of the training videos, red, green, blue; the network was trained without dividing by the deviation."""


class Bottleneck(nnx.Module):
    """Residual block of 1x1x1, 3x3x3 and 1x1x1 convolutions; a projection shortcut where the shape changes (type B)."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, rngs: nnx.Rngs):
        out_channels = EXPANSION * channels
        self.conv1 = Conv(in_channels, channels, (1, 1, 1), rngs=rngs)
        self.bn1 = BatchNorm(channels, BATCH_NORM_EPSILON, rngs=rngs)
        self.conv2 = Conv(channels, channels, (3, 3, 3), stride, 1, rngs=rngs)
        self.bn2 = BatchNorm(channels, BATCH_NORM_EPSILON, rngs=rngs)
        self.conv3 = Conv(channels, out_channels, (1, 1, 1), rngs=rngs)
        self.bn3 = BatchNorm(out_channels, BATCH_NORM_EPSILON, rngs=rngs)
        self.downsample = nnx.List([])
        if stride != 1 or in_channels != out_channels:
            self.downsample.append(Conv(in_channels, out_channels, (1, 1, 1), stride, rngs=rngs))
            self.downsample.append(BatchNorm(out_channels, BATCH_NORM_EPSILON, rngs=rngs))

    def __call__(self, x: Float[Array, "n t h w cin"]) -> Float[Array, "n t2 h2 w2 cout"]:
        """Return non-negative features; with stride 2 at half the size, rounded up."""
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet3D(nnx.Module):
    """3D ResNet-50 without its classifier: the mean over all positions after the last stage."""

    input_size: ClassVar[int] = 112
    """Side of the input frames, in pixels."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = Conv(3, 64, (7, 7, 7), (1, 2, 2), 3, rngs=rngs)
        self.bn1 = BatchNorm(64, BATCH_NORM_EPSILON, rngs=rngs)
        self.layer1 = _stage(3, 64, 64, stride=1, rngs=rngs)
        self.layer2 = _stage(4, EXPANSION * 64, 128, stride=2, rngs=rngs)
        self.layer3 = _stage(6, EXPANSION * 128, 256, stride=2, rngs=rngs)
        self.layer4 = _stage(3, EXPANSION * 256, 512, stride=2, rngs=rngs)

    def __call__(self, clips: Float[Array, "n t h w 3"]) -> Float[Array, "n 2048"]:
        """Return the features of clips of RGB frames, 0 to 255."""
        x = nnx.relu(self.bn1(self.conv1(clips - PIXEL_MEAN)))
        # The original pads with minus infinity; after a ReLU a padded zero never beats the values inside either.
        x = nnx.max_pool(jnp.pad(x, [(0, 0), *[(1, 1)] * 3, (0, 0)]), (3, 3, 3), (2, 2, 2))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = block(x)
        return x.mean((1, 2, 3))


def _stage(blocks: int, in_channels: int, channels: int, stride: int, rngs: nnx.Rngs) -> nnx.List:
    first = Bottleneck(in_channels, channels, stride, rngs=rngs)
    return nnx.List([first, *(Bottleneck(EXPANSION * channels, channels, 1, rngs=rngs) for _ in range(blocks - 1))])
