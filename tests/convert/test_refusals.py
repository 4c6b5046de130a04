"""Sources that do not fit or are damaged: one sentence, and nothing is written."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimicmotion_jax.convert import convert
from mimicmotion_jax.runtime.errors import InputError

VAE_FILE = "vae/diffusion_pytorch_model.fp16.safetensors"


def run_convert(svd, motion, output):
    convert(str(svd), str(motion), output, progress=False)


def edit_motion(change):
    def edit(copy):
        state = torch.load(copy.motion, weights_only=True)
        change(state)
        torch.save(state, copy.motion)

    return edit


def edit_json(file, **values):
    def edit(copy):
        path = copy.svd / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def truncate(copy):
    path = copy.svd / VAE_FILE
    path.write_bytes(path.read_bytes()[:-100])


def flip(copy):
    """The lowest bits of some numbers, which stay finite."""
    content = bytearray(copy.motion.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(byte ^ 1 for byte in content[middle : middle + 3000])
    copy.motion.write_bytes(content)


def swap_in_another_network(state):
    kept = {key.removeprefix("unet."): value for key, value in state.items()}
    state.clear()
    state.update(kept)


BROKEN = {
    "unmapped": (
        edit_motion(lambda s: s.update({"unet.new.weight": torch.ones(1)})),
        r"1 unmapped \(unet\.new\.weight\)",
    ),
    "missing": (edit_motion(lambda s: s.pop("pose_net.scale")), r"1 missing \(pose_net\.scale\)"),
    "mis-shaped": (
        edit_motion(lambda s: s.update({"unet.conv_in.bias": torch.ones(3).half()})),
        r"1 mis-shaped \(unet\.conv_in\.bias is \(3,\) instead of \(32,\)\)",
    ),
    "wrong architecture": (
        edit_motion(swap_in_another_network),
        r"MimicMotion\.pth holds another network than its configuration, \d+ of \d+ tensors fit: .* and \d+ more",
    ),
    "not finite": (
        edit_motion(lambda s: s["unet.conv_out.weight"].fill_(float("inf"))),
        r"conv_out\.weight has values that are not finite",
    ),
    "other sizes": (edit_json("vae/config.json", block_out_channels=[32, 32, 32, 96]), r"mis-shaped \(.*decoder"),
    "no network of ours": (edit_json("unet/config.json", _class_name="UNet2DModel"), "UNet2DModel"),
    "malformed config": (lambda c: (c.svd / "unet/config.json").write_text("{"), "is not valid JSON"),
    "no config": (lambda c: (c.svd / "unet/config.json").unlink(), "lacks unet/config.json"),
    "no weights": (lambda c: (c.svd / VAE_FILE).unlink(), "lacks weights for the vae"),
    "truncated": (truncate, r"vae/diffusion_pytorch_model\.fp16\.safetensors is truncated"),
    "flipped bits": (flip, r"MimicMotion\.pth is damaged \(.*\); fetch it again"),
    "no scale of latents": (edit_json("vae/config.json", scaling_factor=math.nan), "scaling_factor: .*finite"),
    "no folder": (lambda c: shutil.rmtree(c.svd), "svd is neither a folder nor a hub id"),
    "no file": (lambda c: c.motion.unlink(), "MimicMotion.pth is neither a file nor a hub id"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_sources_are_one_sentence_and_nothing_is_written(case, copy, tmp_path):
    spoil, message = BROKEN[case]
    spoil(copy)
    with pytest.raises(InputError, match=message) as caught:
        run_convert(copy.svd, copy.motion, tmp_path / "results" / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("results/*"))


def test_a_key_in_two_shards_and_a_missing_shard_are_named(copy, tmp_path):
    state = load_file(copy.svd / VAE_FILE)
    (copy.svd / VAE_FILE).unlink()
    keys = sorted(state)
    for file, part in {"a.safetensors": keys[:-1], "b.safetensors": [keys[0], keys[-1]]}.items():
        save_file({key: state[key] for key in part}, copy.svd / "vae" / file)
    weight_map = {key: "a.safetensors" for key in keys} | {keys[-1]: "b.safetensors"}
    index = copy.svd / "vae/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError, match=rf"1 duplicate \({keys[0]}\)"):
        run_convert(copy.svd, copy.motion, tmp_path / "out")
    (copy.svd / "vae/b.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks vae/b\.safetensors"):
        run_convert(copy.svd, copy.motion, tmp_path / "out")
    index.write_text(json.dumps({"weight_map": {"x": "../../secret.safetensors"}}))
    with pytest.raises(InputError, match="names a shard outside its folder"):
        run_convert(copy.svd, copy.motion, tmp_path / "out")


def test_all_misfitting_sources_are_reported_together(copy, tmp_path):
    edit_motion(lambda state: state.pop("unet.conv_in.bias"))(copy)
    vae = load_file(copy.svd / VAE_FILE)
    del vae["quant_conv.bias"]
    save_file(vae, copy.svd / VAE_FILE)
    with pytest.raises(InputError, match=r"missing \(unet\.conv_in\.bias\).*missing \(quant_conv\.bias\)"):
        run_convert(copy.svd, copy.motion, tmp_path / "out")
