"""VAE against diffusers: moments of images, frames of several latents."""

import jax.numpy as jnp
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from official import jit

from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig, VAEConfig

CONFIGS = {
    "two blocks": {"block_out_channels": (32, 64), "layers_per_block": 2},
    "four blocks": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2},
    "two blocks, one layer": {"block_out_channels": (32, 96), "layers_per_block": 1},
    "three layers": {"block_out_channels": (32, 64), "layers_per_block": 3},
}


@pytest.mark.parametrize(
    "name",
    [
        "two blocks",
        pytest.param("four blocks", marks=pytest.mark.slow),  # `pipeline/test_official_loop` has four
        pytest.param("two blocks, one layer", marks=pytest.mark.slow),
        pytest.param("three layers", marks=pytest.mark.slow),
    ],
)
def test_matches_diffusers(name, load_torch, random_weights, error):
    kinds = ("DownEncoderBlock2D",) * len(CONFIGS[name]["block_out_channels"])
    reference = random_weights(AutoencoderKLTemporalDecoder(down_block_types=kinds, **CONFIGS[name]), seed=0)
    config = VAEConfig.from_official(dict(reference.config))
    strides = (1, *(2,) * (len(kinds) - 1))
    pose_net = PoseNetConfig(channels=(3,) * len(strides), strides=strides)
    vae = load_torch("vae", ModelConfig(vae=config, pose_net=pose_net), reference.state_dict())
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, 32, 48, generator=generator) * 2 - 1
    with torch.no_grad():
        distribution = reference.encode(pixels).latent_dist
    mean, logvar = jit(lambda vae, x: vae.encode(x))(vae, jnp.asarray(pixels.permute(0, 2, 3, 1)))
    assert error(mean, distribution.mean.permute(0, 2, 3, 1)) < 2e-5
    assert error(logvar, distribution.logvar.permute(0, 2, 3, 1)) < 2e-5
    for frames in (1, 4) if name == "three layers" else (4,):
        latents = torch.randn(2, frames, 4, 8, 6, generator=generator)
        with torch.no_grad():
            expected = reference.decode(latents.flatten(0, 1), num_frames=frames).sample.unflatten(0, (2, frames))
        ours = jit(lambda vae, x: vae.decode(x))(vae, jnp.asarray(latents.permute(0, 1, 3, 4, 2)))
        assert error(ours, expected.permute(0, 1, 3, 4, 2)) < 2e-5
