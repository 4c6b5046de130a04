"""3D ResNet-50 (Hara, Kataoka and Satoh, CVPR 2018) trained on Kinetics, whose pooled features FID-VID compares.

Attribute names are those of `resnet-50-kinetics.pth`.
"""

from typing import ClassVar

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.metrics.layers import BatchNorm, Conv, max_pool

BATCH_NORM_EPSILON = 1e-5
EXPANSION = 4
PIXEL_MEAN = np.array([114.7748, 107.7354, 99.4750], np.float32)
"""Of the training videos, red, green, blue; the network was trained without a division by the deviation."""

# Bottlenecks and their inner channels, per stage.
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))


class Bottleneck(nnx.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions around a shortcut, which is projected where the shape changes (type B)."""

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
        """With stride 2 half the size, rounded up."""
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet3D(nnx.Module):
    """Features of a clip: the mean over all positions after the last stage; the classifier is left out."""

    input_size: ClassVar[int] = 112
    """Side of the frames, pixels."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = Conv(3, 64, (7, 7, 7), (1, 2, 2), 3, rngs=rngs)
        self.bn1 = BatchNorm(64, BATCH_NORM_EPSILON, rngs=rngs)
        in_channels = 64
        for stage, (blocks, channels) in enumerate(_STAGES, start=1):
            layer = nnx.List([])
            for block in range(blocks):
                layer.append(Bottleneck(in_channels, channels, 2 if stage > 1 and block == 0 else 1, rngs=rngs))
                in_channels = EXPANSION * channels
            setattr(self, f"layer{stage}", layer)

    def __call__(self, clips: Float[Array, "n t h w 3"]) -> Float[Array, "n 2048"]:
        """Features of clips of RGB frames, 0 to 255."""
        x = nnx.relu(self.bn1(self.conv1(clips - PIXEL_MEAN)))
        x = max_pool(x, (3, 3, 3), (2, 2, 2), 1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = block(x)
        return x.mean((1, 2, 3))
