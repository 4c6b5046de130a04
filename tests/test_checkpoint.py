"""Our checkpoints: exact, strict, cast and sharded while loading, and clear about damage."""

import json
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
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig, UNetConfig, VAEConfig
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.errors import InputError

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")

CONFIG = ModelConfig(
    unet=UNetConfig(block_out_channels=(32, 64), down_block_types=UNetConfig().down_block_types[2:],
                    up_block_types=UNetConfig().up_block_types[:2], num_attention_heads=(1, 2)),
    vae=VAEConfig(block_out_channels=(32,), layers_per_block=1),
    pose_net=PoseNetConfig(strides=(1,) * 8, out_channels=32),
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
    root = Path(checkpoint.__file__).parents[2]
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
        r"damaged \(vae\.0\.a\.dtype: 'float33' is no floating-point type",
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


def test_a_damaged_file_is_named(saved, networks):
    damaged = largest(saved / "params/vae-00000")
    flip(damaged)
    with pytest.raises(InputError, match=rf"vae-00000 is damaged .*{damaged.name} is not as it was written\)\.$"):
        load_params(saved, "vae", abstract("vae"), progress=False)
    assert_equal(load_params(saved, "pose_net", abstract("pose_net"), progress=False), networks["pose_net"])
    (saved / "params/checksums.json").write_text('{"vae-00000/a": 3}')
    with pytest.raises(InputError, match=r"checksums\.json is damaged \(vae-00000/a: "):
        load_params(saved, "vae", abstract("vae"), progress=False)


def test_checkpoints_of_before_the_checksums(saved, networks):
    """They are read as ever; of damage orbax tells in an Exception of no class."""
    (saved / "params/checksums.json").unlink()
    assert_equal(load_params(saved, "vae", abstract("vae"), progress=False), networks["vae"])
    damaged = largest(saved / "params/vae-00000")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(InputError, match="vae-00000 is damaged or incomplete") as caught:
        load_params(saved, "vae", abstract("vae"), progress=False)
    assert "\n" not in str(caught.value)


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
