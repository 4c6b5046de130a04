"""Export to PyTorch: bit-exact, with MimicMotion's UNet, and loaded by diffusers."""

import json
import shutil

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from safetensors.torch import load_file

from mimicmotion_jax.convert import convert, export_torch
from mimicmotion_jax.convert.official import find_window_size
from mimicmotion_jax.convert.sources import open_mimicmotion, open_svd, read_official_config
from mimicmotion_jax.runtime.errors import InputError

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:mimicmotion_jax")
SUFFIX = {"float16": ".fp16", "bfloat16": ".bf16", "float32": ""}


@pytest.fixture(scope="session")
def exported(converted, tmp_path_factory):
    """The converted checkpoint, exported in its own dtype."""
    output = tmp_path_factory.mktemp("exported") / "back"
    export_torch(converted, output, progress=False)
    return output


def same(read, expected):
    expected = {key: value for key, value in expected.items() if not key.endswith("position_ids")}
    assert set(read) == set(expected)
    return all(read[key].dtype == expected[key].dtype and torch.equal(read[key], expected[key]) for key in read)


def assert_same_files(back, state, suffix):
    motion = torch.load(back / "MimicMotion.pth", weights_only=True)
    assert same(motion, {f"{name}.{k}": v for name in ("unet", "pose_net") for k, v in state[name].items()})
    for name, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("image_encoder", "model"),
    ):
        assert same(load_file(back / "svd" / name / f"{stem}{suffix}.safetensors"), state[name])


def test_round_trip_is_bit_exact(official, exported):
    assert_same_files(exported, official.state, ".fp16")


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
def test_round_trip_is_bit_exact_in_other_dtypes_and_export_casts_as_torch_does(dtype, write_layout, tmp_path):
    source = write_layout(tmp_path / "source", dtype, None)
    convert(str(source.svd), str(source.motion), tmp_path / "ours", progress=False)
    export_torch(tmp_path / "ours", tmp_path / "back", progress=False)
    assert_same_files(tmp_path / "back", source.state, SUFFIX[source.dtype])
    export_torch(tmp_path / "ours", tmp_path / "back", progress=False, dtype="float16", overwrite=True)
    half = {name: {k: v.half() for k, v in state.items()} for name, state in source.state.items()}
    assert_same_files(tmp_path / "back", half, ".fp16")


def test_diffusers_loads_the_folder_and_every_class_strictly(official, official_modules, exported):
    svd = exported / "svd"
    pipeline = StableVideoDiffusionPipeline.from_pretrained(svd, variant="fp16", torch_dtype=torch.float16)
    for name in ("unet", "vae", "image_encoder"):
        module = getattr(pipeline, name)
        module.load_state_dict(load_file(next((svd / name).glob("*.safetensors"))), strict=True)
        assert same(module.state_dict(), official.state[name])
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.sigma_max == 700
    motion = torch.load(svd.parent / "MimicMotion.pth", weights_only=True)
    pose = {k.removeprefix("pose_net."): v for k, v in motion.items() if k.startswith("pose_net.")}
    pose_net = official_modules()["pose_net"]
    pose_net.final_proj = torch.nn.Conv2d(128, pipeline.unet.config.block_out_channels[0], 1)
    pose_net.half().load_state_dict(pose, strict=True)
    assert same(pose_net.state_dict(), official.state["pose_net"])


def test_the_unet_exported_is_mimicmotions_and_the_window_size_survives(official, exported, tmp_path):
    stated = json.loads((exported / "svd/unet/config.json").read_text())
    assert stated["num_frames"] == official.window_size
    (file,), (svds,) = ((root / "svd/unet").glob("*.safetensors") for root in (exported, official.root))
    unet, other = load_file(file), load_file(svds)
    assert same(unet, official.state["unet"])
    assert any(not torch.equal(unet[key], other[key]) for key in unet)
    unet_values = read_official_config(open_svd(str(exported / "svd")), "unet")
    assert find_window_size(None, unet_values, "x", open_mimicmotion(str(exported / "MimicMotion.pth")))[0] == (
        official.window_size
    )


def test_refusals_leave_nothing_behind(made, converted_made, tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        export_torch(made.root, tmp_path / "back", progress=False)
    shutil.copytree(converted_made, tmp_path / "ours")
    (tmp_path / "back").mkdir()
    (tmp_path / "back/cat.png").touch()
    with pytest.raises(InputError, match="exists already"):
        export_torch(tmp_path / "ours", tmp_path / "back", progress=False)
    for file in (tmp_path / "ours/params/vae-00000").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="vae-00000 is damaged or incomplete"):
        export_torch(tmp_path / "ours", tmp_path / "new", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "ours"]
    with pytest.raises(InputError, match="local folder"):
        export_torch(tmp_path / "ours", "gs://bucket/back", progress=False)
