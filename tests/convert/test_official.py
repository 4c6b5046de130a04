"""Whole conversions: every layout, what ends up in the checkpoint, and refusals that leave nothing behind."""

import hashlib
import json
import math
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import load_file, save_file

from mimicmotion_jax.checkpoint import flat_params, load_params, read_config, read_manifest
from mimicmotion_jax.convert import convert
from mimicmotion_jax.convert.tables import TABLES
from mimicmotion_jax.models.build import NETWORKS, abstract_network
from mimicmotion_jax.runtime.errors import InputError

SCRIPT = Path(__file__).resolve().parents[2] / "convert_weights.py"
VAE_FILE = "vae/diffusion_pytorch_model.fp16.safetensors"

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


def load(checkpoint, name):
    config = read_config(checkpoint)
    return flat_params(load_params(checkpoint, name, nnx.state(abstract_network(name, config)), progress=False))


def expected_array(key, tensor):
    """The layout that our layers take, written down once more."""
    array = tensor.float().numpy()
    if array.ndim == 5:
        return np.einsum("oitxy->tio", array)
    if array.ndim == 4:
        return np.einsum("oihw->hwio", array)
    return array.T if array.ndim == 2 and "position_embedding" not in key else array


def assert_holds(checkpoint, state, names=tuple(NETWORKS)):
    """Every tensor of `state` is in the checkpoint with its exact values, and nothing else is."""
    for name in names:
        ours = {TABLES[name].torch_key(path): array for path, array in load(checkpoint, name).items()}
        theirs = {key: value for key, value in state[name].items() if not key.endswith("position_ids")}
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert ours[key].dtype.name == str(value.dtype).removeprefix("torch.")
            np.testing.assert_array_equal(np.asarray(ours[key], np.float32), expected_array(key, value), err_msg=key)


def run_convert(svd, motion, output, **options):
    convert(str(svd), str(motion), output, progress=False, **options)


def test_official_layout_converts_exactly_with_mimicmotions_unet(official, converted):
    assert_holds(converted, official.state)
    (file,) = (official.svd / "unet").glob("*.safetensors")
    other = load_file(file)
    assert any(not torch.equal(other[key], official.state["unet"][key]) for key in other), "the sources do not differ"


def test_manifest_tells_where_the_weights_came_from(official, converted):
    manifest = read_manifest(converted)
    files = {"": official.motion, "vae": official.svd / VAE_FILE}
    files["image_encoder"] = official.svd / "image_encoder/model.fp16.safetensors"
    assert [source["name"] for source in manifest["sources"]] == [str(file) for file in files.values()]
    for source, file in zip(manifest["sources"], files.values(), strict=True):
        assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert source["bytes"] == file.stat().st_size
    keys = {name: len(state) for name, state in official.state.items()}
    assert manifest["sources"][0]["keys"] == keys["unet"] + keys["pose_net"]
    for name, state in official.state.items():
        written = manifest["networks"][name]
        assert written["dtype"] == "float16"
        assert written["keys"] == sum(not key.endswith("position_ids") for key in state)
        assert written["parameters"] == sum(v.numel() for k, v in state.items() if not k.endswith("position_ids"))
    assert manifest["window_size"] == official.window_size
    assert read_config(converted).window_size == official.window_size


@pytest.mark.parametrize(
    ("file", "window_size", "expected"),
    [
        ("MimicMotion_1.pth", None, 16),
        ("MimicMotion_1-1.pth", None, 72),
        ("MimicMotion_1.pth", 24, 24),
        ("mine.pth", None, 9),
    ],
)
def test_window_size_belongs_to_the_checkpoint(file, window_size, expected, copy, tmp_path):
    copy.motion.rename(copy.root / file)
    run_convert(copy.svd, copy.root / file, tmp_path / "out", window_size=window_size)
    assert read_config(tmp_path / "out").window_size == expected


def test_a_window_of_no_frames_is_refused(made, tmp_path):
    with pytest.raises(InputError, match="window_size: input should be greater than or equal to 2, not 0"):
        run_convert(made.svd, made.motion, tmp_path / "out", window_size=0)


def test_svd_needs_no_unet_weights_with_mimicmotion(copy, tmp_path):
    for file in (copy.svd / "unet").glob("*.safetensors"):
        file.unlink()
    run_convert(copy.svd, copy.motion, tmp_path / "out")
    assert_holds(tmp_path / "out", copy.state)


def test_svd_alone_starts_training(made, tmp_path):
    run_convert(made.svd, "none", tmp_path / "out")
    own = load_file(made.svd / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert_holds(tmp_path / "out", {**made.state, "unet": own}, ("unet", "vae", "image_encoder"))
    pose_net = load(tmp_path / "out", "pose_net")
    assert float(pose_net["scale"][0]) == 2
    assert not np.asarray(pose_net["final_proj.kernel"]).any()
    kernel = np.asarray(pose_net["conv_layers.7.kernel"], np.float32)
    assert kernel.std() == pytest.approx((2 / (3 * 3 * 64)) ** 0.5, rel=0.02)  # He-normal
    assert read_manifest(tmp_path / "out")["sources"][-1] == {"name": "PoseNet initialised with seed 0"}


def test_variants_shards_and_pickles_are_read(made, write_layout, tmp_path):
    single = write_layout(tmp_path / "single", torch.float32, None)
    run_convert(single.svd, single.motion, tmp_path / "a")
    assert_holds(tmp_path / "a", single.state)

    # Shards with an index, in the UNet; a pickle in CLIP; a pickle of bfloat16 in the VAE.
    state = load_file(single.svd / "unet/diffusion_pytorch_model.safetensors")
    keys = sorted(state)
    shards = {f"diffusion_pytorch_model-{n:05d}-of-00003.safetensors": keys[n - 1 :: 3] for n in (1, 2, 3)}
    for file, part in shards.items():
        save_file({key: state[key] for key in part}, single.svd / "unet" / file)
    weight_map = {key: file for file, part in shards.items() for key in part}
    index = single.svd / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (single.svd / "unet/diffusion_pytorch_model.safetensors").unlink()
    (single.svd / "image_encoder/model.safetensors").unlink()
    torch.save(single.state["image_encoder"], single.svd / "image_encoder/pytorch_model.bin")
    (single.svd / "vae/diffusion_pytorch_model.safetensors").unlink()
    vae = {key: value.bfloat16() for key, value in single.state["vae"].items()}
    torch.save(vae, single.svd / "vae/diffusion_pytorch_model.bf16.bin")
    run_convert(single.svd, "none", tmp_path / "b")
    assert_holds(tmp_path / "b", {**single.state, "unet": state, "vae": vae}, ("unet", "vae", "image_encoder"))

    # MimicMotion as safetensors, and as shards named by their index.
    motion = torch.load(single.motion, weights_only=True)
    save_file(motion, tmp_path / "motion.safetensors")
    run_convert(single.svd, tmp_path / "motion.safetensors", tmp_path / "c")
    assert_holds(tmp_path / "c", {**single.state, "vae": vae})
    halves = {"m-1.safetensors": sorted(motion)[::2], "m-2.safetensors": sorted(motion)[1::2]}
    for file, part in halves.items():
        save_file({key: motion[key] for key in part}, tmp_path / file)
    weight_map = {key: file for file, part in halves.items() for key in part}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    run_convert(single.svd, tmp_path / "m.safetensors.index.json", tmp_path / "d")
    assert_holds(tmp_path / "d", {**single.state, "vae": vae})


def test_float32_takes_the_full_precision_files_where_there_are_both(made, write_layout, tmp_path):
    both = write_layout(tmp_path / "both", torch.float32, None)
    for name in ("vae", "image_encoder"):
        for file in (made.svd / name).glob("*.safetensors"):
            shutil.copy(file, both.svd / name)
    run_convert(both.svd, both.motion, tmp_path / "full", dtype="float32")
    assert_holds(tmp_path / "full", both.state)
    run_convert(both.svd, both.motion, tmp_path / "half", dtype="float16")
    assert [Path(source["name"]).name for source in read_manifest(tmp_path / "half")["sources"][1:]] == [
        "diffusion_pytorch_model.fp16.safetensors",
        "model.fp16.safetensors",
    ]


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
    assert not list((tmp_path / "results").iterdir())


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


def test_outputs_are_replaced_only_on_request_and_only_our_own(made, tmp_path):
    run_convert(made.svd, made.motion, tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        run_convert(made.svd, made.motion, tmp_path / "out")
    run_convert(made.svd, made.motion, tmp_path / "out", overwrite=True, dtype="float32")
    assert read_manifest(tmp_path / "out")["networks"]["vae"]["dtype"] == "float32"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    with pytest.raises(InputError, match="no earlier output"):
        run_convert(made.svd, made.motion, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos/cat.png").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        run_convert(made.svd, made.motion, tmp_path / "file")
    with pytest.raises(InputError, match="cannot write to"):
        run_convert(made.svd, made.motion, tmp_path / "file" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out", "photos"]


def test_the_script_converts_reports_and_goes_back(made, tmp_path, monkeypatch, capsys):
    def script(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return stopped.value.code, *capsys.readouterr()

    sources = ("--svd", made.svd, "--mimicmotion", made.motion)
    status, out, err = script(*sources, "--output", tmp_path / "out")
    assert (status, out) == (0, f"wrote {tmp_path / 'out'}\n")
    assert "Converting unet" in err
    status, out, err = script(*sources[:2], "--mimicmotion", made.root, "--output", tmp_path / "new")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert "is a folder; name the file in it" in err
    status, _, err = script("--to-torch", tmp_path / "out", "--output", tmp_path / "back")
    assert status == 0
    assert "Exporting" in err
    assert (tmp_path / "back/MimicMotion.pth").exists()
    for wrong in (("--svd", "x"), ("--to-torch", "x", "--svd", "y"), (*sources, "--dtype", "int8")):
        assert script(*wrong, "--output", tmp_path / "new")[0] == 2
