"""Impossible sizes are rejected by name, before a network is built."""

import pytest

from mimicmotion_jax.config import build_config
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig

AT_LEAST_1 = "input should be greater than or equal to 1, not 0"
WRONG = [
    ({"unet": {"num_attention_heads": 0}}, rf"unet\.num_attention_heads: {AT_LEAST_1}"),
    ({"unet": {"num_attention_heads": [5, 10, 20, 0]}}, rf"unet\.num_attention_heads\.3: {AT_LEAST_1}"),
    ({"unet": {"num_attention_heads": 6}}, "320 channels do not divide into 32 groups and 6 heads"),
    ({"unet": {"norm_num_groups": 0}}, rf"unet\.norm_num_groups: {AT_LEAST_1}"),
    ({"unet": {"norm_num_groups": 3}}, "320 channels do not divide into 3 groups and 5 heads"),
    ({"unet": {"layers_per_block": 0}}, rf"unet\.layers_per_block: {AT_LEAST_1}"),
    ({"unet": {"layers_per_block": [2, 2]}}, "layers_per_block has 2 entries for 4 blocks"),
    ({"unet": {"block_out_channels": []}}, r"unet\.block_out_channels: .* at least 1 item"),
    (
        {"unet": {"addition_time_embed_dim": 5, "projection_class_embeddings_input_dim": 15}},
        "addition_time_embed_dim must be even",
    ),
    ({"vae": {"norm_num_groups": 0}}, rf"vae\.norm_num_groups: {AT_LEAST_1}"),
    ({"vae": {"block_out_channels": []}}, r"vae\.block_out_channels: .* at least 1 item"),
    ({"vae": {"block_out_channels": [40, 80, 80, 80]}}, r"must be multiples of norm_num_groups \(32\)"),
    ({"vae": {"layers_per_block": 0}}, rf"vae\.layers_per_block: {AT_LEAST_1}"),
    ({"vae": {"in_channels": 4}}, r"vae\.in_channels: input should be 3, not 4"),
    ({"vae": {"scaling_factor": 0}}, r"vae\.scaling_factor: input should be greater than 0"),
    ({"vae": {"block_out_channels": [32, 64]}}, "strides of PoseNet multiply to 8, but the VAE has 2 pixels"),
    ({"image_encoder": {"num_attention_heads": 0}}, rf"image_encoder\.num_attention_heads: {AT_LEAST_1}"),
    ({"image_encoder": {"num_attention_heads": 7}}, "hidden_size of num_attention_heads"),
    ({"pose_net": {"strides": [1, 2]}}, "strides has 2 entries for 8 channels"),
    ({"pose_net": {"strides": [1, 2, 1, 2, 1, 1, 1, 1]}}, "strides of PoseNet multiply to 4, but the VAE has 8 pixels"),
    ({"pose_net": {"strides": [1, 8, 1, 1, 1, 1, 1, 1]}}, r"pose_net\.strides\.1: .* less than or equal to 2, not 8"),
    ({"pose_net": {"channels": [], "strides": []}}, r"pose_net\.channels: .* at least 1 item"),
    ({"window_size": 1}, "window_size: input should be greater than or equal to 2, not 1"),
]


@pytest.mark.parametrize(("sizes", "message"), WRONG)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(InputError, match=message) as caught:
        build_config(ModelConfig, sizes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blocks", [1, 2, 4, 5])
def test_a_vae_of_any_depth_can_be_trained(blocks):
    """The model of such a run names a PoseNet that would fit."""
    config = build_config(VAETrainConfig, {"vae": {"block_out_channels": [32] * blocks}})
    model = config.model(0.5)
    assert model.vae.downscale == model.pose_net.downscale == 2 ** (blocks - 1)
