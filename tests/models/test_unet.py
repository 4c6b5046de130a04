"""UNet against diffusers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from official import jit

from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, PoseNetConfig, UNetConfig
from mimicmotion_jax.runtime.errors import InputError

CROSS_DOWN, DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
CROSS_UP, UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"
CONFIGS = {
    "three blocks, two layers": {
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, DOWN),
        "up_block_types": (UP, CROSS_UP, CROSS_UP),
        "block_out_channels": (32, 64, 96),
        "num_attention_heads": (1, 4, 3),
        "cross_attention_dim": 48,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96,
    },
    "two blocks, no attention": {
        "down_block_types": (DOWN, DOWN),
        "up_block_types": (UP, UP),
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "num_attention_heads": (1, 1),
        "cross_attention_dim": 16,
        "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 48,
    },
    "two blocks, deeper": {
        "down_block_types": (CROSS_DOWN, DOWN),
        "up_block_types": (UP, CROSS_UP),
        "block_out_channels": (64, 32),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2),
        "num_attention_heads": (4, 2),
        "cross_attention_dim": 16,
        "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 48,
    },
}
CONFIGS["two blocks, deeper outside"] = CONFIGS["two blocks, deeper"] | {"transformer_layers_per_block": (2, 1)}


def model_config(unet: UNetConfig) -> ModelConfig:
    clip = CLIPConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=unet.context_dim,
    )
    return ModelConfig(unet=unet, image_encoder=clip, pose_net=PoseNetConfig(out_channels=unet.block_out_channels[0]))


@jit
def run(unet, sample, c_noise, context, time_ids, pose):
    return unet(sample, c_noise, unet.conditions(context, time_ids, sample.shape[1]), pose)


def predict(unet, sample, c_noise, context, time_ids, pose=None):
    """Our UNet on PyTorch's inputs."""
    channels_last = (0, 1, 3, 4, 2)
    pose = None if pose is None else pose.permute(channels_last).numpy()
    sample = sample.permute(channels_last).numpy()
    return run(unet, sample, c_noise.numpy(), context[:, 0].numpy(), time_ids.numpy(), pose)


@pytest.fixture(scope="module")
def networks(load_torch, random_weights):
    """A function from a configuration's name to diffusers' network and ours with the same weights."""

    @functools.cache
    def make(name):
        reference = random_weights(UNetSpatioTemporalConditionModel(**CONFIGS[name]), seed=0)
        config = model_config(UNetConfig.from_official(dict(reference.config)))
        return reference, load_torch("unet", config, reference.state_dict())

    return make


@pytest.mark.parametrize(
    ("name", "frames", "height", "width"),
    [
        pytest.param("three blocks, two layers", 3, 8, 16, marks=pytest.mark.slow),
        ("two blocks, deeper", 5, 16, 8),
        pytest.param("two blocks, deeper outside", 5, 16, 8, marks=pytest.mark.slow),
    ],
)
def test_matches_diffusers(name, frames, height, width, networks, error):
    reference, unet = networks(name)
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, frames, 8, height, width, generator=generator)
    context = torch.randn(2, 1, unet.config.context_dim, generator=generator)
    c_noise, time_ids = torch.tensor([1.3, -0.7]), torch.tensor([[6.0, 127, 0.02], [23, 40, 0]])
    with torch.no_grad():
        expected = reference(sample, c_noise, context, time_ids).sample
    # Zeros where another test adds features to the same network: one program for both.
    pose = torch.zeros(2, frames, 64, height, width) if "deeper" in name else None
    ours = predict(unet, sample, c_noise, context, time_ids, pose)
    assert error(ours, expected.permute(0, 1, 3, 4, 2)) < 2e-5


def test_pose_features_are_added_after_the_first_convolution(networks, error):
    reference, unet = networks("two blocks, deeper")
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(2, 5, 8, 16, 8, generator=generator)
    pose = torch.randn(2, 5, 64, 16, 8, generator=generator)
    context, time_ids = torch.randn(2, 1, 16, generator=generator), torch.tensor([[6.0, 127, 0]] * 2)
    hook = reference.conv_in.register_forward_hook(lambda module, args, output: output + pose.flatten(0, 1))
    with torch.no_grad():
        expected = reference(sample, torch.tensor(0.5), context, time_ids).sample
    hook.remove()
    ours = predict(unet, sample, torch.full((2,), 0.5), context, time_ids, pose)
    assert error(ours, expected.permute(0, 1, 3, 4, 2)) < 2e-5


@pytest.mark.parametrize(
    ("name", "depth", "channels"),
    [
        ("two blocks, no attention", 2, 32),
        pytest.param("two blocks, no attention", 1, 32, marks=pytest.mark.slow),
        pytest.param("two blocks, deeper", 3, 64, marks=pytest.mark.slow),
        pytest.param("two blocks, deeper", 1, 64, marks=pytest.mark.slow),
    ],
)
def test_kept_features(name, depth, channels, networks, error):
    """Diffusers' whole UNet, in which a hook brings back what entered the last layers at another noise level."""
    reference, unet = networks(name)
    generator = torch.Generator().manual_seed(4)
    samples = torch.randn(2, 1, 5, 8, 16, 8, generator=generator)
    context, time_ids = torch.randn(1, 1, 16, generator=generator), torch.tensor([[6.0, 127, 0]])
    kept = []

    def bring_back(module, args):
        """One layer from the end they are joined with a skip; a whole level from the end they are upsampled."""
        x = args[0]
        kept.append(x[:, :channels] if depth == 1 else x)
        return (torch.cat([kept[0], x[:, channels:]], dim=1) if depth == 1 else kept[0], *args[1:])

    up = reference.up_blocks
    place = up[1].resnets[-1] if depth == 1 else up[0].upsamplers[0]
    hook = place.register_forward_pre_hook(bring_back)
    with torch.no_grad():
        _, expected = (reference(x, t, context, time_ids).sample for x, t in zip(samples, (1.5, 1.1), strict=True))
    hook.remove()
    assert error(kept[1], kept[0].numpy()) > 1e-2

    @functools.partial(jax.jit, static_argnames="depth")
    def predict(unet, sample, c_noise, deep, depth):
        conditions = unet.conditions(jnp.asarray(context[:, 0].numpy()), jnp.asarray(time_ids.numpy()), 5)
        return unet.predict(sample, c_noise, conditions, depth=depth, deep=deep)

    first, second = samples.permute(0, 1, 2, 4, 5, 3).numpy()
    _, deep = predict(unet, first, np.float32([1.5]), None, depth)
    ours, again = predict(unet, second, np.float32([1.1]), deep, depth)
    assert error(ours, expected.permute(0, 1, 3, 4, 2)) < 2e-5
    np.testing.assert_array_equal(again, deep)


def test_conditions_of_a_repeated_batch_are_tiled(networks):
    _, unet = networks("two blocks, deeper")
    context, ids = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32), np.ones((2, 3), np.float32)
    tiled = jax.jit(lambda *args: unet.conditions(*args, 3).tile(2))(context, ids)
    direct = jax.jit(lambda *args: unet.conditions(*args, 3))(np.tile(context, (2, 1)), np.tile(ids, (2, 1)))
    np.testing.assert_allclose(tiled.embedding, direct.embedding, rtol=1e-6)
    np.testing.assert_allclose(tiled.up[1][0].spatial[0], direct.up[1][0].spatial[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tiled.mid[0].frame_position, direct.mid[0].frame_position)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"block_out_channels": [30, 64]}, "groups"),
        ({"num_attention_heads": [1, 2, 4]}, "3 entries for 2 blocks"),
        ({"down_block_types": ["DownBlock2D", DOWN]}, "DownBlock2D"),
        ({"surprise": 1}, "surprise"),
        ({"layers_per_block": "two"}, "layers_per_block"),
    ],
)
def test_an_unsupported_config_is_named(change, message):
    base = {k: list(v) if isinstance(v, tuple) else v for k, v in CONFIGS["two blocks, deeper"].items()}
    with pytest.raises(InputError, match=message):
        UNetConfig.from_official(base | change)
