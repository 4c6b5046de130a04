"""Checkpoints: exact, strict, cast and sharded while loading, and clear about damage."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mimicmotion_jax.checkpoint import (
    flat_params,
    load_network,
    new_checkpoint,
    plan_groups,
    read_config,
    read_manifest,
    save_checkpoint,
)
from mimicmotion_jax.models.config import PoseNetConfig, VAEConfig
from mimicmotion_jax.runtime.errors import InputError

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


@pytest.fixture
def saved(stored, tmp_path):
    """A copy of the checkpoint, to be spoilt."""
    return Path(shutil.copytree(stored, tmp_path / "saved"))


@pytest.fixture
def load(config):
    """A function that loads the parameters of a network."""
    return lambda directory, name, **options: nnx.state(load_network(directory, name, config, **options))


def assert_equal(state, expected, dtype=None):
    ours, theirs = flat_params(state), flat_params(expected)
    assert list(ours) == list(theirs)
    for path, array in theirs.items():
        assert ours[path].dtype == (dtype or array.dtype)
        np.testing.assert_array_equal(np.asarray(ours[path]), np.asarray(array.astype(dtype or array.dtype)))


def test_groups_keep_order_and_bounds():
    sizes = {"a": 3, "b": 4, "c": 2, "huge": 50, "d": 10, "e": 1}
    assert plan_groups(sizes, 10) == [["a", "b", "c"], ["huge"], ["d"], ["e"]]
    assert plan_groups({}, 10) == []


def test_saved_is_loaded_exactly(stored, networks, config, load):
    for name, state in networks.items():
        assert_equal(load(stored, name), state)
    assert read_config(stored) == config
    manifest = read_manifest(stored)
    assert manifest["window_size"] == 24
    assert manifest["sources"] == [{"name": "here"}]
    assert manifest["networks"]["pose_net"]["dtype"] == "bfloat16"
    leaves = flat_params(networks["vae"]).values()
    assert manifest["networks"]["vae"]["keys"] == len(leaves)
    assert manifest["networks"]["vae"]["parameters"] == sum(leaf.size for leaf in leaves)


def test_no_file_names_this_machines_folders(stored):
    """Checkpoints are published; Orbax's own markers would say where they were made."""
    files = [path for path in stored.rglob("*") if path.is_file()]
    assert any(path.name == "commit_success.txt" for path in files)
    assert not [path for path in files if str(stored.parent).encode() in path.read_bytes()]


# float32, as stored: `test_saved_is_loaded_exactly` has it; float16 casts as bfloat16 does.
@pytest.mark.parametrize(
    "dtype", [pytest.param(name, marks=pytest.mark.slow) for name in ("float32", "float16")] + ["bfloat16"]
)
def test_loading_and_saving_cast(dtype, stored, networks, config, load, tmp_path):
    assert_equal(load(stored, "vae", dtype=dtype), networks["vae"], dtype)
    save_checkpoint(tmp_path / "cast", config, {"vae": networks["vae"]}, dtype=dtype, progress=False)
    assert_equal(load(tmp_path / "cast", "vae"), networks["vae"], dtype)


def test_many_groups_load_as_one(networks, config, load, tmp_path):
    params = flat_params(networks["vae"])
    with new_checkpoint(tmp_path / "cut") as writer:
        groups = plan_groups({path: array.nbytes for path, array in params.items()}, 100_000)
        for group in groups:
            writer.add_group("vae", {path: np.asarray(params[path]) for path in group})
        writer.finish(config, [])
    assert len(groups) > 5
    assert len(list((tmp_path / "cut/params").glob("vae-*"))) == len(groups)
    assert_equal(load(tmp_path / "cut", "vae"), networks["vae"])


def test_arrays_are_placed_as_asked_and_saved_from_there(stored, networks, config, load, tmp_path):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    split, whole = NamedSharding(mesh, PartitionSpec("x")), NamedSharding(mesh, PartitionSpec())

    def place(path):
        return split if path.endswith("norm1.scale") else whole

    state = load(stored, "vae", place=place)
    for path, array in flat_params(state).items():
        assert array.sharding == place(path), path
    scale = flat_params(state)["encoder.mid_block.resnets.0.norm1.scale"]
    assert [shard.data.shape for shard in scale.addressable_shards] == [(8,)] * 4
    assert_equal(state, networks["vae"])
    save_checkpoint(tmp_path / "again", config, {"vae": state}, progress=False)
    assert_equal(load(tmp_path / "again", "vae"), networks["vae"])
    assert {array.sharding for array in flat_params(load(stored, "pose_net", place=whole)).values()} == {whole}


def test_misfits_are_listed_by_name(stored, config):
    other = dataclasses.replace(config, vae=VAEConfig(block_out_channels=(32,), layers_per_block=2))
    with pytest.raises(InputError, match=r"decoder\.mid_block\.resnets\.1\.spatial_res_block\.conv1\.bias is missing"):
        load_network(stored, "vae", other)
    short = PoseNetConfig(channels=(3, 16, 16, 32, 32, 64, 64), strides=(1,) * 7, out_channels=32)
    with pytest.raises(InputError, match=r"conv_layers\.7\.bias is unknown"):
        load_network(stored, "pose_net", dataclasses.replace(config, pose_net=short))
    narrow = dataclasses.replace(config.pose_net, channels=(3, 16, 16, 32, 32, 64, 64, 96))
    with pytest.raises(InputError, match=r"conv_layers\.7\.bias is \(128,\) instead of \(96,\)"):
        load_network(stored, "pose_net", dataclasses.replace(config, pose_net=narrow))
    with pytest.raises(InputError, match="holds no unet, only vae, pose_net"):
        load_network(stored, "unet", config)


def remove_group(root):
    (root / "params/vae-00000/_METADATA").unlink()
    (root / "params/vae-00000/manifest.ocdbt").unlink()


def cut_data(root):
    for file in (root / "params/vae-00000").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])


def write_index(content):
    return lambda root: (root / "params/index.json").write_text(json.dumps(content))


DAMAGE = {
    "no manifest": (lambda root: (root / "manifest.json").unlink(), "holds no checkpoint"),
    "no index": (lambda root: (root / "params/index.json").unlink(), r"index\.json cannot be read"),
    "half an index": (lambda root: (root / "params/index.json").write_text('{"vae": '), r"index\.json cannot be read"),
    "no object": (lambda root: (root / "manifest.json").write_text("[]"), r"manifest\.json is damaged"),
    "no list of groups": (write_index({"vae": 3}), r"index\.json is damaged \(vae: .*list"),
    "numbers for groups": (write_index({"vae": [1, 2]}), r"index\.json is damaged \(vae\.0: .*dictionary"),
    "no shape": (write_index({"vae": [{"a": {"dtype": "float32"}}]}), r"index\.json is damaged \(vae\.0\.a\.shape: "),
    "no such type": (
        write_index({"vae": [{"a": {"shape": [1], "dtype": "float33"}}]}),
        r"damaged \(vae\.0\.a\.dtype: 'float33' is not a floating-point type",
    ),
    "no sources": (
        lambda root: (root / "manifest.json").write_text('{"format": 1, "window_size": 8, "networks": {}}'),
        r"manifest\.json is damaged \(sources: ",
    ),
    "later format": (lambda root: (root / "manifest.json").write_text('{"format": 9}'), "checkpoint format 9"),
    "missing files": (remove_group, "vae-00000 is damaged or incomplete"),
    "truncated files": (cut_data, "vae-00000 is damaged or incomplete"),
}


def flip(file, count=2000):
    """Turn over bytes in the middle; the file is as long as before."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + count] = bytes(byte ^ 255 for byte in content[middle : middle + count])
    file.write_bytes(content)


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_damaged_file_is_named(saved, networks, load):
    damaged = largest(saved / "params/vae-00000")
    flip(damaged)
    with pytest.raises(InputError, match=rf"vae-00000 is damaged .*{damaged.name} has another checksum"):
        load(saved, "vae")
    assert_equal(load(saved, "pose_net"), networks["pose_net"])
    (saved / "params/checksums.json").write_text('{"vae-00000/a": 3}')
    with pytest.raises(InputError, match=r"checksums\.json is damaged \(vae-00000/a: "):
        load(saved, "vae")


def test_checkpoints_of_before_the_checksums(saved, networks, load):
    """They are read as ever; of damage orbax tells in an Exception of no class."""
    (saved / "params/checksums.json").unlink()
    assert_equal(load(saved, "vae"), networks["vae"])
    damaged = largest(saved / "params/vae-00000")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(InputError, match="vae-00000 is damaged or incomplete") as caught:
        load(saved, "vae")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_sentence(case, saved, load):
    spoil, message = DAMAGE[case]
    spoil(saved)
    with pytest.raises(InputError, match=message) as caught:
        load(saved, "vae")
    assert "\n" not in str(caught.value)


def test_a_mistaken_config_is_named(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "window_size": 1}))
    with pytest.raises(InputError, match=r"config\.json has a mistake: .*window_size"):
        read_config(saved)
