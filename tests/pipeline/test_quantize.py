"""Pipelines with int8 weights: nearly the same video, an identity of their own, and what cannot be done with them."""

import jax
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import InputError, MimicMotionPipeline, sharding
from mimicmotion_jax.convert.lora import write_lora
from mimicmotion_jax.models.lora import LowRank, linear_layers

OPTIONS = {"num_inference_steps": 2, "guidance_scale": 1.0, "motion_kind": "skeletons", "progress": False}


@pytest.fixture(scope="module")
def quantized(tiny_checkpoint):
    return MimicMotionPipeline.from_pretrained(tiny_checkpoint, "float32", num_devices=1, quantize="int8")


@pytest.mark.slow  # `models/test_quantization` compares the UNet and its layers
def test_nearly_the_same_video(tiny_pipeline, quantized, error):
    random = np.random.default_rng(5)
    image, poses = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 256, (6, 64, 64, 3), np.uint8)
    expected = tiny_pipeline(image, poses, output_type="latent", **OPTIONS).frames
    # Idle networks go to the host's memory and come back.
    found = quantized(image, poses, output_type="latent", memory="low", **OPTIONS).frames
    assert 1e-5 < error(found, expected) < 0.05


def test_bytes_on_every_device(tiny_pipeline, tiny_checkpoint):
    mesh = sharding.sampling_mesh(devices=jax.devices()[:2])
    pipeline = MimicMotionPipeline.from_pretrained(tiny_checkpoint, "float32", mesh, quantize="int8")
    plain = nnx.to_flat_state(nnx.state(tiny_pipeline.unet))
    rounded = {".".join(map(str, path)): array for path, array in plain if path[-1] == "kernel"}
    rounded = {path: array for path, array in rounded.items() if "embedding" not in path and path[:5] != "conv_"}
    saved_bytes = sum(3 * array.size - 4 * array.shape[-1] for array in rounded.values())  # a scale per channel
    before, after = (jax.tree.leaves(nnx.state(p.unet)) for p in (tiny_pipeline, pipeline))
    assert sum(x.nbytes for x in after) == sum(x.nbytes for x in before) - saved_bytes
    assert all(x.sharding.is_fully_replicated and len(x.sharding.device_set) == 2 for x in after)


def test_another_identity(tiny_checkpoint, quantized):
    """Progress that a run without quantize saved is not continued."""
    plain = MimicMotionPipeline.from_pretrained(tiny_checkpoint, "float32", num_devices=1)
    assert plain._identity() != quantized._identity()
    assert plain._model_sha256 != quantized._model_sha256


@pytest.mark.slow
def test_a_lora_is_merged_before(tiny_checkpoint, tiny_pipeline, tmp_path):
    name, random = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", np.random.default_rng(0)
    a, b = (random.standard_normal(shape, np.float32) for shape in ((32, 2), (2, 32)))
    write_lora(tmp_path / "lora", {name: LowRank(a, b)}, {}, tiny_pipeline.config)
    lora = f"{tmp_path / 'lora'}:0.5"
    pipeline = MimicMotionPipeline.from_pretrained(
        tiny_checkpoint, "float32", num_devices=1, lora=lora, quantize="int8"
    )
    merged = np.asarray(linear_layers(tiny_pipeline.unet)[name].kernel[...]) + 0.5 * a @ b
    found = np.asarray(linear_layers(pipeline.unet)[name].kernel[...])
    scale = np.abs(merged).max(axis=0) / 127
    assert (np.abs(found - merged) <= 0.501 * scale).all()
    # Another one on top of it is kept apart.
    pipeline.load_lora_weights(tmp_path / "lora", merge=False)
    assert linear_layers(pipeline.unet)[name].lora is not None


def test_refusals(tiny_checkpoint, quantized, tmp_path):
    with pytest.raises(InputError, match="quantize must be"):
        MimicMotionPipeline.from_pretrained(tiny_checkpoint, quantize="int4")
    with pytest.raises(InputError, match="cannot be saved"):
        quantized.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(InputError, match="cannot be merged into weights in int8"):
        quantized.load_lora_weights(tmp_path)
