"""Files of the official layout: variants, shards, pickles, and which of several is taken."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimicmotion_jax.convert.sources import open_mimicmotion, open_svd, open_svd_weights
from mimicmotion_jax.convert.tables import TABLES


def read(weights):
    """All tensors of opened weights by key."""
    tensors = [file.read([entry.key for entry in file.entries]) for file in weights.files]
    assert sum(map(len, tensors)) == len(weights.entries)
    return {key: tensor for part in tensors for key, tensor in part.items()}


def assert_same(weights, expected):
    found = read(weights)
    assert set(found) == set(expected)
    assert all(found[key].dtype == expected[key].dtype and torch.equal(found[key], expected[key]) for key in found)


def write_shards(folder, index, stem, state, count):
    keys = sorted(state)
    parts = {f"{stem}-{number + 1:05d}-of-{count:05d}.safetensors": keys[number::count] for number in range(count)}
    for file, part in parts.items():
        save_file({key: state[key] for key in part}, folder / file)
    weight_map = {key: file for file, part in parts.items() for key in part}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_and_pickles_of_svd_are_read(made, copy):
    svd, stem = copy.svd, "diffusion_pytorch_model"
    unet = load_file(svd / f"unet/{stem}.fp16.safetensors")
    write_shards(svd / "unet", f"{stem}.safetensors.index.fp16.json", stem, unet, 3)
    (svd / f"unet/{stem}.fp16.safetensors").unlink()
    (svd / "image_encoder/model.fp16.safetensors").unlink()
    torch.save(made.state["image_encoder"], svd / "image_encoder/pytorch_model.bin")
    (svd / f"vae/{stem}.fp16.safetensors").unlink()
    vae = {key: value.bfloat16() for key, value in made.state["vae"].items()}
    torch.save(vae, svd / f"vae/{stem}.bf16.bin")
    repository = open_svd(str(svd))
    expected = {"unet": unet, "image_encoder": made.state["image_encoder"], "vae": vae}
    for name, state in expected.items():
        assert_same(open_svd_weights(repository, TABLES[name], None), state)


def test_mimicmotion_is_read_from_a_pickle_safetensors_and_shards(made, tmp_path):
    motion = torch.load(made.motion, weights_only=True)
    save_file(motion, tmp_path / "motion.safetensors")
    write_shards(tmp_path, "m.safetensors.index.json", "m", motion, 2)
    for source in (made.motion, tmp_path / "motion.safetensors", tmp_path / "m.safetensors.index.json"):
        assert_same(open_mimicmotion(str(source)), motion)


@pytest.mark.parametrize(
    ("dtype", "present", "taken"),
    [
        (None, ("", ".fp16", ".bf16"), ".fp16"),
        ("float32", ("", ".fp16", ".bf16"), ""),
        ("float16", ("", ".fp16", ".bf16"), ".fp16"),
        ("bfloat16", ("", ".fp16", ".bf16"), ".bf16"),
        ("float32", (".bf16",), ".bf16"),
        ("bfloat16", ("",), ""),
        ("float16", ("",), ""),
    ],
)
def test_the_variant_nearest_to_the_dtype_is_taken(dtype, present, taken, made, tmp_path):
    (tmp_path / "vae").mkdir()
    for variant in present:
        file = made.svd / "vae/diffusion_pytorch_model.fp16.safetensors"
        shutil.copy(file, tmp_path / f"vae/diffusion_pytorch_model{variant}.safetensors")
    weights = open_svd_weights(open_svd(str(tmp_path)), TABLES["vae"], dtype)
    assert weights.name.endswith(f"/vae/diffusion_pytorch_model{taken}.safetensors")
