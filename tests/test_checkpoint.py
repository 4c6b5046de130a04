"""Our checkpoints: exact, strict, atomic, cast and sharded while loading, and clear about damage."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.checkpoint import (
    flat_params,
    load_params,
    new_checkpoint,
    plan_groups,
    read_config,
    read_manifest,
    save_checkpoint,
)
from mimicmotion_jax.directories import absolute_path, atomic_directory, check_space, write_file
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig, UNetConfig, VAEConfig
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.vae import VAE

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

CONFIG = ModelConfig(
    unet=UNetConfig(block_out_channels=(32, 64), down_block_types=UNetConfig().down_block_types[2:],
                    up_block_types=UNetConfig().up_block_types[:2], num_attention_heads=(1, 2)),
    vae=VAEConfig(block_out_channels=(32,), layers_per_block=1),
    pose_net=PoseNetConfig(out_channels=32),
    window_size=24,
)  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    @jax.jit
    def init():
        return {
            "vae": nnx.state(VAE(CONFIG.vae, rngs=nnx.Rngs(1), param_dtype=jnp.float32)),
            "pose_net": nnx.state(PoseNet(CONFIG.pose_net, rngs=nnx.Rngs(2), param_dtype=jnp.bfloat16)),
        }

    return init()


@pytest.fixture
def saved(networks, tmp_path):
    save_checkpoint(tmp_path / "saved", CONFIG, networks, sources=[{"name": "here"}], progress=False)
    return tmp_path / "saved"


def abstract(name):
    return nnx.state(abstract_network(name, CONFIG))


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


def test_paths_become_absolute_and_remote_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(absolute_path("a/../b")) == str(tmp_path / "b")
    assert str(absolute_path("gs://bucket/run/weights")) == "gs://bucket/run/weights"
    assert str(absolute_path("gs://bucket/run/weights").parent) == "gs://bucket/run"


def test_room_is_looked_at_before_writing(tmp_path):
    check_space(tmp_path / "out", 1000)
    check_space("gs://bucket/out", 10**18)
    with pytest.raises(InputError, match=r"take 1000000000\.0 GB and there is room for [\d.]+ GB at .*; free some"):
        check_space(tmp_path / "out", 10**18)


def test_abstract_networks_have_the_leaves_of_real_ones(networks):
    for name, state in networks.items():
        real = {path: array.shape for path, array in flat_params(state).items()}
        assert {path: leaf.shape for path, leaf in flat_params(abstract(name)).items()} == real


def test_saved_is_loaded_exactly(saved, networks):
    for name, state in networks.items():
        assert_equal(load_params(saved, name, abstract(name), progress=False), state)
    assert read_config(saved) == CONFIG
    manifest = read_manifest(saved)
    assert manifest["window_size"] == 24
    assert manifest["sources"] == [{"name": "here"}]
    assert manifest["networks"]["pose_net"]["dtype"] == "bfloat16"
    leaves = flat_params(networks["vae"]).values()
    assert manifest["networks"]["vae"]["keys"] == len(leaves)
    assert manifest["networks"]["vae"]["parameters"] == sum(leaf.size for leaf in leaves)


def test_no_file_names_this_machines_folders(saved):
    """Checkpoints are published; Orbax's own markers would say where they were made."""
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert any(path.name == "commit_success.txt" for path in files)
    assert not [path for path in files if str(saved.parent).encode() in path.read_bytes()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_loading_and_saving_cast(dtype, saved, networks, tmp_path):
    assert_equal(load_params(saved, "vae", abstract("vae"), dtype, progress=False), networks["vae"], dtype)
    save_checkpoint(tmp_path / "cast", CONFIG, networks, dtype=dtype, progress=False)
    assert_equal(load_params(tmp_path / "cast", "vae", abstract("vae"), progress=False), networks["vae"], dtype)


def test_many_groups_load_as_one(networks, tmp_path):
    params = flat_params(networks["vae"])
    with new_checkpoint(tmp_path / "cut") as writer:
        groups = plan_groups({path: array.nbytes for path, array in params.items()}, 100_000)
        for group in groups:
            writer.add_group("vae", {path: np.asarray(params[path]) for path in group})
        writer.finish(CONFIG, [])
    assert len(groups) > 5
    assert len(list((tmp_path / "cut/params").glob("vae-*"))) == len(groups)
    assert_equal(load_params(tmp_path / "cut", "vae", abstract("vae"), progress=False), networks["vae"])


SHARDED = """
import sys
import jax, numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from mimicmotion_jax.checkpoint import flat_params, load_params, read_config, save_checkpoint
from mimicmotion_jax.models.build import abstract_network
saved, again = sys.argv[1:]
config = read_config(saved)
mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
abstract = nnx.state(abstract_network("vae", config))
split, whole = NamedSharding(mesh, PartitionSpec("x")), NamedSharding(mesh, PartitionSpec())
def place(path):
    return split if path.endswith("norm1.scale") else whole
state = load_params(saved, "vae", abstract, sharding=place, progress=False)
for path, array in flat_params(state).items():
    assert array.sharding == place(path), path
scale = flat_params(state)["encoder.mid_block.resnets.0.norm1.scale"]
assert scale.addressable_shards[3].data.shape == (8,)
save_checkpoint(again, config, {"vae": state}, progress=False)
one = load_params(saved, "vae", abstract, sharding=whole, progress=False)
assert all(array.sharding == whole for array in flat_params(one).values())
"""


def test_arrays_go_where_they_are_told_and_are_saved_from_there(saved, networks, tmp_path):
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PATH": ""}
    root = Path(checkpoint.__file__).parents[1]
    subprocess.run([sys.executable, "-c", SHARDED, saved, tmp_path / "again"], check=True, cwd=root, env=env)
    assert_equal(load_params(tmp_path / "again", "vae", abstract("vae"), progress=False), networks["vae"])


def test_misfits_are_listed_by_name(saved):
    state = abstract("pose_net")
    leaves = dict(nnx.to_flat_state(state))
    wrong = leaves.pop(("final_proj", "bias"))
    leaves["new", "bias"] = wrong
    leaves["scale",] = leaves["scale",].replace(jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(InputError) as caught:
        load_params(saved, "pose_net", nnx.from_flat_state(list(leaves.items())), progress=False)
    message = str(caught.value)
    assert "new.bias is missing" in message
    assert "final_proj.bias is unknown" in message
    assert "scale is (1,) instead of (2,)" in message
    with pytest.raises(InputError, match="holds no unet, only pose_net, vae"):
        load_params(saved, "unet", abstract("unet"), progress=False)


def remove_group(root):
    (root / "params/vae-00000/_METADATA").unlink()
    (root / "params/vae-00000/manifest.ocdbt").unlink()


def cut_data(root):
    for file in (root / "params/vae-00000").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])


DAMAGE = {
    "no manifest": (lambda root: (root / "manifest.json").unlink(), "holds no checkpoint"),
    "no index": (lambda root: (root / "params/index.json").unlink(), r"index\.json cannot be read"),
    "half an index": (lambda root: (root / "params/index.json").write_text('{"vae": '), r"index\.json cannot be read"),
    "no object": (lambda root: (root / "manifest.json").write_text("[]"), r"manifest\.json is damaged"),
    "later format": (lambda root: (root / "manifest.json").write_text('{"format": 9}'), "checkpoint format 9"),
    "missing files": (remove_group, "vae-00000 is damaged or incomplete"),
    "truncated files": (cut_data, "vae-00000 is damaged or incomplete"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_sentence(case, saved):
    spoil, message = DAMAGE[case]
    spoil(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_params(saved, "vae", abstract("vae"), progress=False)
    assert "\n" not in str(caught.value)


def test_a_mistaken_config_is_named(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "window_size": 1}))
    with pytest.raises(InputError, match=r"config\.json has a mistake: .*window_size"):
        read_config(saved)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "a", marker="m") as temporary:
        temporary.mkdir()
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()  # empty: may be filled
    with atomic_directory(tmp_path / "a", marker="m") as temporary:
        (temporary / "m").write_text("1")
        assert not list((tmp_path / "a").iterdir())
    with pytest.raises(InputError, match="exists already"), atomic_directory(tmp_path / "a", marker="m"):
        pass
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "a", marker="m", overwrite=True) as temporary:
        temporary.mkdir()
    assert (tmp_path / "a/m").read_text() == "1"
    with atomic_directory(tmp_path / "a", marker="m", overwrite=True) as temporary:
        (temporary / "m").write_text("2")
    assert [(path.name, (path / "m").read_text()) for path in tmp_path.iterdir()] == [("a", "2")]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    write_file(tmp_path / "a", b"first")
    write_file(tmp_path / "a", b"second")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # fails in the middle, as a full disk does
    try:
        with pytest.raises(OSError, match="File too large"):
            write_file(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"second")]
