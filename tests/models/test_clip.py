"""CLIP image encoder against transformers, and its preprocessing against diffusers' SVD pipeline."""

import jax.numpy as jnp
import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from official import jit
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mimicmotion_jax.models.clip import preprocess
from mimicmotion_jax.models.config import CLIPConfig, ModelConfig, UNetConfig

CONFIGS = {
    "patches of 32": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "projection_dim": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "patch_size": 32,
        "hidden_act": "gelu",
    },
    "patches of 14, quick gelu": {
        "hidden_size": 32,
        "intermediate_size": 80,
        "projection_dim": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": 84,
        "hidden_act": "quick_gelu",
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_matches_transformers(name, load_torch, random_weights, error):
    torch_config = CLIPVisionConfig(**CONFIGS[name])
    reference = random_weights(CLIPVisionModelWithProjection(torch_config), seed=0)
    config = CLIPConfig.from_official(
        {key: value for key, value in torch_config.to_diff_dict().items()} | {"architectures": None}
    )
    assert config.patch_size == CONFIGS[name]["patch_size"]
    whole = ModelConfig(unet=UNetConfig(cross_attention_dim=config.projection_dim), image_encoder=config)
    clip = load_torch("image_encoder", whole, reference.state_dict())
    pixels = torch.randn(2, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(pixels).image_embeds
    assert error(jit(clip)(jnp.asarray(pixels.permute(0, 2, 3, 1))), expected) < 2e-5


@pytest.mark.parametrize(("height", "width", "size"), [(1024, 576, 224), (64, 128, 224), (231, 640, 84)])
def test_input_matches_the_svd_pipeline(height, width, size, error):
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    resized = (_resize_with_antialiasing(pixels, (size, size)) + 1) / 2
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    expected = (resized - mean) / std
    ours = preprocess(jnp.asarray(pixels.permute(0, 2, 3, 1)), size)
    assert error(ours, expected.permute(0, 2, 3, 1)) < 2e-5
