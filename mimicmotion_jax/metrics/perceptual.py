"""LPIPS (Zhang et al., CVPR 2018), version 0.1 on AlexNet: perceptual distance of two frames, 0 for equal ones.

The authors recommend AlexNet for measuring. DisCo's evaluation uses VGG on frames in [0, 1], where LPIPS expects
[-1, 1]; its LPIPS numbers do not compare with these.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.metrics.layers import Conv

MIN_SIDE = 31
"""Smallest side of a frame, in pixels; after AlexNet's second pooling nothing would be left of a smaller one."""

# ImageNet's mean and deviation per channel, rescaled by LPIPS to frames in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_EPSILON = 1e-10

_CHANNELS = (3, 64, 192, 384, 256, 256)
_CONVS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # kernel, stride, padding
_POOLED = (1, 2)  # indices of convolutions that follow a max pooling


class LPIPS(nnx.Module):
    """Weighted squared differences of unit-length AlexNet features, averaged over positions, summed over five layers.

    Frames are RGB, 0 to 255. `convs` are the convolutions of torchvision's `alexnet.features`, `lins` the learned
    weights of their channels (PyTorch: `lpips.LPIPS(net="alex")`).
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.convs = nnx.List(
            [
                Conv(cin, cout, (kernel, kernel), stride, padding, use_bias=True, rngs=rngs)
                for (cin, cout), (kernel, stride, padding) in zip(itertools.pairwise(_CHANNELS), _CONVS, strict=True)
            ]
        )
        self.lins = nnx.List([Conv(channels, 1, (1, 1), rngs=rngs) for channels in _CHANNELS[1:]])

    def __call__(self, a: Float[Array, "n h w 3"], b: Float[Array, "n h w 3"]) -> Float[Array, " n"]:
        """Return the distance of each pair of frames, 0 for equal ones."""
        x = (jnp.concatenate([a, b]) / 127.5 - 1 - _SHIFT) / _SCALE
        distance = jnp.zeros(len(a), x.dtype)
        for index, (conv, lin) in enumerate(zip(self.convs, self.lins, strict=True)):
            if index in _POOLED:
                x = nnx.max_pool(x, (3, 3), (2, 2))
            x = nnx.relu(conv(x))
            unit_a, unit_b = jnp.split(x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _EPSILON), 2)
            distance += lin((unit_a - unit_b) ** 2).mean((1, 2, 3))
        return distance
