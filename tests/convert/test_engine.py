"""Names, shapes and layouts against the official classes; and every way in which a source can fail to fit."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from flax import nnx
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mimicmotion_jax.convert.engine import Expected, Leaf, match, network_leaves, to_ours, to_torch
from mimicmotion_jax.convert.torch_files import Entry
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError

LINEAR = Leaf("a.kernel", (3, 2), "a.weight", (1, 0))
CONV = Leaf("c.kernel", (2, 3, 4, 5), "c.weight", (2, 3, 1, 0))
TEMPORAL = Leaf("t.kernel", (3, 4, 5), "t.weight", (2, 1, 0, 3, 4))
PLAIN = Leaf("n.scale", (6,), "n.weight", (0,))


def full_size_modules():
    vae = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4}
    clip = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        projection_dim=1024,
    )
    with torch.device("meta"):
        return {
            "unet": UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)),
            "vae": AutoencoderKLTemporalDecoder(**vae, layers_per_block=2),
            "image_encoder": CLIPVisionModelWithProjection(clip),
        }


def test_full_size_keys_and_shapes_are_those_of_the_official_classes():
    for name, module in full_size_modules().items():
        ours = {leaf.key: leaf.torch_shape for leaf in network_leaves(name, ModelConfig())}
        theirs = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        assert ours == theirs


def test_pose_net_keys_and_shapes_are_those_of_the_paper():
    leaves = {leaf.key: leaf.torch_shape for leaf in network_leaves("pose_net", ModelConfig())}
    widths = [(3, 3, 3), (16, 3, 4), (16, 16, 3), (32, 16, 4), (32, 32, 3), (64, 32, 4), (64, 64, 3), (128, 64, 3)]
    expected = {"scale": (1,), "final_proj.weight": (320, 128, 1, 1), "final_proj.bias": (320,)}
    for number, (cout, cin, kernel) in enumerate(widths):
        expected[f"conv_layers.{2 * number}.weight"] = (cout, cin, kernel, kernel)
        expected[f"conv_layers.{2 * number}.bias"] = (cout,)
    assert leaves == expected


def test_kernels_compute_the_same_as_in_pytorch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, generator=generator)
    weight = torch.randn(2, 3, generator=generator)
    linear = x.numpy() @ to_ours(weight, LINEAR, None)
    np.testing.assert_allclose(linear, functional.linear(x, weight).numpy(), atol=1e-6)

    image = torch.randn(1, 4, 6, 7, generator=generator)
    weight = torch.randn(5, 4, 2, 3, generator=generator)
    conv = nnx.Conv(4, 5, (2, 3), padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    conv.kernel.set_value(jnp.asarray(to_ours(weight, CONV, None)))
    ours = conv(image.permute(0, 2, 3, 1).numpy()).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, functional.conv2d(image, weight).numpy(), atol=1e-5)

    video = torch.randn(1, 4, 5, 1, 1, generator=generator)
    weight = torch.randn(5, 4, 3, 1, 1, generator=generator)
    kernel = to_ours(weight, TEMPORAL, None)
    frames = video[0, :, :, 0, 0].T.numpy()
    ours = sum(frames[tap : tap + 3] @ kernel[tap] for tap in range(3))
    np.testing.assert_allclose(ours.T[None, :, :, None, None], functional.conv3d(video, weight).numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("leaf", [LINEAR, CONV, TEMPORAL, PLAIN])
def test_there_and_back_is_exact(leaf, dtype):
    tensor = torch.randn(leaf.torch_shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    array = to_ours(tensor, leaf, None)
    assert array.shape == leaf.shape
    assert str(array.dtype) == str(dtype).removeprefix("torch.")
    back = to_torch(jnp.asarray(array), leaf, None)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_casts_round_to_nearest_even():
    values = np.array([1 + 2**-9, 1 + 3 * 2**-9, -3.14159, 1e-3, 255.5, 0.1], np.float32)
    ours = to_ours(torch.from_numpy(values), PLAIN, "bfloat16")
    assert ours.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(ours, values.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(to_ours(torch.from_numpy(values), PLAIN, "float16"), values.astype(np.float16))


def test_values_that_are_not_finite_are_named():
    with pytest.raises(InputError, match=r"n\.weight has values that are not finite \(NaN or infinity in the file\)"):
        to_ours(torch.tensor([1, 2, 3, 4, 5, float("nan")]), PLAIN, None)
    with pytest.raises(InputError, match=r"n\.weight .* \(beyond the range of float16\)"):
        to_ours(torch.full((6,), 7e4), PLAIN, "float16")
    with pytest.raises(InputError, match=r"n\.scale has values that are not finite in torch\.float16"):
        to_torch(jnp.full((6,), 7e4), PLAIN, "float16")


def entry(key, shape=(2, 3), dtype="float16"):
    return Entry(key, shape, dtype, None)


def test_every_misfit_is_listed_by_name():
    expected = [Expected("unet", "unet.", [LINEAR, CONV, TEMPORAL, PLAIN])]
    entries = [
        entry("unet.a.weight"),
        entry("unet.a.weight"),
        entry("unet.c.weight", (5, 4, 3, 2)),
        entry("unet.n.weight", (6,), "int8"),
        entry("unet.extra.weight"),
        entry("optimizer.a"),
    ]
    with pytest.raises(InputError) as caught:
        match("motion.pth", entries, expected)
    message = str(caught.value)
    assert message.startswith("motion.pth holds another network than its configuration, 0 of 4 tensors fit: ")
    assert "1 missing (unet.t.weight)" in message
    assert "2 unmapped (unet.extra.weight, optimizer.a)" in message
    assert "1 duplicate (unet.a.weight)" in message
    assert "1 mis-shaped (unet.c.weight is (5, 4, 3, 2) instead of (5, 4, 2, 3))" in message
    assert "unet.n.weight is int8" in message


def test_a_long_list_of_misfits_is_cut():
    entries = [entry(f"strange.{number}") for number in range(500)]
    with pytest.raises(InputError, match=r"other\.pth holds .*0 of 1 .*strange\.2 and 497 more") as caught:
        match("other.pth", entries, [Expected("unet", "", [LINEAR])])
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError, match=r"other\.pth does not fit .*1 of 1 .*strange\.19 and 480 more"):
        match("other.pth", [*entries, entry("a.weight")], [Expected("unet", "", [LINEAR])])


def test_buffers_are_ignored_and_old_names_of_the_vae_understood():
    buffer = entry("vision_model.embeddings.position_ids", (1, 257), "int64")
    leaf = Leaf("a.kernel", (3, 2), "a.weight", (1, 0))
    assert list(match("clip", [entry("a.weight"), buffer], [Expected("image_encoder", "", [leaf])])["image_encoder"])

    key = "encoder.mid_block.attentions.0"
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    leaves = [Leaf(new, (3, 2), f"{key}.{new}.weight", (1, 0)) for new in names.values()]
    old = [entry(f"{key}.{name}.weight") for name in names]
    found = match("vae", old, [Expected("vae", "", leaves)])["vae"]
    assert {path: found[path][1].key for path in found} == {new: f"{key}.{name}.weight" for name, new in names.items()}
    with pytest.raises(InputError, match=r"duplicate \(\S+query\.weight = \S+to_q\.weight\)"):
        match("vae", [*old, entry(f"{key}.to_q.weight")], [Expected("vae", "", leaves)])
