"""Whole conversions: every layout, what ends up in the checkpoint, and refusals that leave nothing behind."""

import hashlib
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import load_file

from mimicmotion_jax.checkpoint import flat_params, load_network, read_config, read_manifest
from mimicmotion_jax.convert import convert
from mimicmotion_jax.convert.tables import TABLES
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.runtime.errors import InputError

SCRIPT = Path(__file__).resolve().parents[2] / "convert_weights.py"
VAE_FILE = "vae/diffusion_pytorch_model.fp16.safetensors"

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


def load(checkpoint, name):
    return flat_params(nnx.state(load_network(checkpoint, name, read_config(checkpoint))))


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


def test_the_window_and_its_origin_are_recorded_and_svd_needs_no_weights_of_its_unet(copy, tmp_path, caplog):
    for file in (copy.svd / "unet").glob("*.safetensors"):
        file.unlink()
    copy.motion.rename(copy.root / "MimicMotion_1-1.pth")
    run_convert(copy.svd, copy.root / "MimicMotion_1-1.pth", tmp_path / "out", dtype="float32")
    single = {name: {k: v.float() for k, v in state.items()} for name, state in copy.state.items()}
    assert_holds(tmp_path / "out", single)
    assert read_config(tmp_path / "out").window_size == 72
    assert "72 frames, assumed" in caplog.text
    assert read_manifest(tmp_path / "out")["sources"][0]["window_size"].startswith("72, assumed")


def test_a_window_of_no_frames_is_refused(made, tmp_path):
    with pytest.raises(InputError, match="window_size: input should be greater than or equal to 2, not 0"):
        run_convert(made.svd, made.motion, tmp_path / "out", window_size=0)


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


def test_outputs_are_replaced_only_on_request_and_only_our_own(made, converted_made, tmp_path):
    shutil.copytree(converted_made, tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        run_convert(made.svd, made.motion, tmp_path / "out")
    run_convert(made.svd, made.motion, tmp_path / "out", overwrite=True, dtype="bfloat16")
    half = {name: {k: v.bfloat16() for k, v in state.items()} for name, state in made.state.items()}
    assert_holds(tmp_path / "out", half)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    with pytest.raises(InputError, match="earlier output"):
        run_convert(made.svd, made.motion, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos/cat.png").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        run_convert(made.svd, made.motion, tmp_path / "file")
    with pytest.raises(InputError, match="cannot write"):
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
