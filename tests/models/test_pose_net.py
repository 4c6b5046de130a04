"""PoseNet against the table in the paper's appendix B, written in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from official import jit

from mimicmotion_jax.models.build import init_network
from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig, UNetConfig
from mimicmotion_jax.models.pose_net import PoseNet

TABLE = [  # channels, kernel, stride, padding: rows 2 to 16
    (3, 3, 1, 1),
    (16, 4, 2, 1),
    (16, 3, 1, 1),
    (32, 4, 2, 1),
    (32, 3, 1, 1),
    (64, 4, 2, 1),
    (64, 3, 1, 1),
    (128, 3, 1, 1),
]


class Reference(torch.nn.Module):
    def __init__(self, out_channels: int):
        super().__init__()
        layers, cin = [], 3
        for cout, kernel, stride, padding in TABLE:
            layers += [torch.nn.Conv2d(cin, cout, kernel, stride, padding), torch.nn.SiLU()]
            cin = cout
        self.conv_layers = torch.nn.Sequential(*layers)
        self.final_proj = torch.nn.Conv2d(cin, out_channels, 1)
        self.scale = torch.nn.Parameter(torch.ones(1) * 2)

    def forward(self, x):
        return self.final_proj(self.conv_layers(x)) * self.scale


@pytest.mark.parametrize("out_channels", [320, 64])
def test_matches_the_table(out_channels, load_torch, random_weights, error):
    reference = random_weights(Reference(out_channels), seed=0)
    reference.scale.data.fill_(1.7)
    unet = UNetConfig(block_out_channels=(out_channels, 640, 1280, 1280), num_attention_heads=(1, 10, 20, 20))
    net = load_torch(
        "pose_net", ModelConfig(unet=unet, pose_net=PoseNetConfig(out_channels=out_channels)), reference.state_dict()
    )
    pixels = torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = reference(pixels)
    assert error(jit(net)(jnp.asarray(pixels.permute(0, 2, 3, 1))), expected.permute(0, 2, 3, 1)) < 2e-5


@pytest.mark.parametrize(
    ("channels", "strides", "layers", "width"),
    [
        (PoseNetConfig().channels, PoseNetConfig().strides, 7, 64),
        ((16, 8, 32, 12, 24), (1, 2, 2, 1, 1), 4, 12),  # eight are of half the resolution only
        ((16, 8), (1, 1), 2, 8),
        ((16, 8), (1, 2), 2, 8),
        ((16, 32), (2, 1), 1, 16),
    ],
)
def test_the_stem_ends_at_the_narrowest_result_of_full_depth(channels, strides, layers, width):
    config = PoseNetConfig(channels=channels, strides=strides, out_channels=40)
    assert (config.stem_layers, config.stem_channels) == (layers, width)
    net = nnx.eval_shape(lambda: PoseNet(config, rngs=nnx.Rngs(0)))
    x = jax.eval_shape(lambda net, x: net.stem(x), net, jax.ShapeDtypeStruct((1, 16, 32, 3), jnp.float32))
    assert x.shape == (1, 16 // config.downscale, 32 // config.downscale, width)
    assert jax.eval_shape(lambda net, x: net.head(x), net, x).shape == (*x.shape[:-1], 40)


def test_a_freshly_initialised_one_adds_nothing():
    net = init_network("pose_net", ModelConfig.tiny(), seed=0)
    assert float(net.scale[0]) == 2.0
    pixels = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    np.testing.assert_array_equal(jax.jit(lambda net, pixels: net(pixels))(net, pixels), 0)
    fan_in = 4 * 4 * 16  # of the fourth convolution, whose kernel is He normal
    np.testing.assert_allclose(jnp.std(net.conv_layers[3].kernel[...]), np.sqrt(2 / fan_in), rtol=0.05)
