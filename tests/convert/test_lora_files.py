"""LoRA files: those of PEFT and diffusers read here, strengths, several at once, and files that are refused."""

import re

import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.loaders import PeftAdapterMixin
from flax import nnx
from hub_server import python, serve
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from mimicmotion_jax import sharding
from mimicmotion_jax.checkpoint import flat_params, load_network, read_config
from mimicmotion_jax.convert.engine import network_leaves
from mimicmotion_jax.convert.lora import Lora, parse_lora, read_lora, write_lora
from mimicmotion_jax.inference.lora import apply_loras
from mimicmotion_jax.models.build import init_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.lora import LowRank
from mimicmotion_jax.runtime.errors import InputError

MODULES = ["to_q", "to_v", "to_out.0", "net.0.proj", "net.2", "conv_in", "conv1"]  # linear, convolutions in 2-D and 3-D
BY_LAYER = {
    "lora_alpha": 3,
    "alpha_pattern": {"to_q": 8, "mid_block.attentions.0.*net.2": 1},
    "rank_pattern": {"to_v": 4},
}


READ = """
import sys
from mimicmotion_jax.convert.lora import read_lora
from mimicmotion_jax.models.config import ModelConfig
lora = read_lora(sys.argv[1], ModelConfig.tiny())
print(lora.sha256, *lora.factors)
"""


class AdaptedUNet(PeftAdapterMixin, UNetSpatioTemporalConditionModel):
    """diffusers' UNet with diffusers' writer of LoRAs."""


@pytest.fixture(scope="module")
def config(converted_made):
    return read_config(converted_made)


@pytest.fixture
def base(made, official_modules) -> UNetSpatioTemporalConditionModel:
    """diffusers' UNet with the weights of `converted_made`, float32."""
    unet = AdaptedUNet(**official_modules()["unet"].config)
    unet.load_state_dict({key: value.float() for key, value in made.state["unet"].items()})
    return unet


def unet_params(converted, config, *loras, merge=True) -> dict[str, np.ndarray]:
    """Parameters of our UNet with LoRAs, by torch key and in torch's layout."""
    unet, pose_net = (load_network(converted, name, config, "float32") for name in ("unet", "pose_net"))
    apply_loras(unet, pose_net, loras, sharding.replicated(sharding.sampling_mesh(1)), merge=merge)
    params = {name: np.asarray(value) for name, value in flat_params(nnx.state(unet)).items()}
    return {
        leaf.key: params[leaf.path].reshape(leaf.permuted_shape).transpose(np.argsort(leaf.axes))
        for leaf in network_leaves("unet", config)
    }


@pytest.mark.parametrize(
    ("writer", "settings"),
    [("peft", BY_LAYER), ("peft", {"lora_alpha": 3, "use_rslora": True}), ("diffusers", BY_LAYER)],
)
def test_merged_kernels_are_those_that_peft_merges(writer, settings, base, converted_made, config, tmp_path):
    settings = LoraConfig(r=2, target_modules=MODULES, **settings)
    if writer == "peft":
        adapted = get_peft_model(base, settings)
        randomise_adapters(adapted)
        adapted.save_pretrained(tmp_path)
        merged = adapted.merge_and_unload().state_dict()
    else:
        base.add_adapter(settings)
        randomise_adapters(base)
        base.save_lora_adapter(tmp_path)
        base.fuse_lora()
        base.unload_lora()
        merged = base.state_dict()
    found = unet_params(converted_made, config, (read_lora(tmp_path, config), 1.0))
    assert found.keys() == merged.keys()
    for key, value in merged.items():
        np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)


def randomise_adapters(module: torch.nn.Module) -> None:
    """Give both factors random values: the second is zero at first."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if ".lora_" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def factors(config, pattern: str, seed: int = 0, rank: int = 2) -> dict[str, LowRank]:
    """Random factors of the linear layers whose names match."""
    generator = np.random.default_rng(seed)
    leaves = [leaf for leaf in network_leaves("unet", config) if re.search(rf"{pattern}\.kernel$", leaf.path)]
    return {
        leaf.path.removesuffix(".kernel"): LowRank(
            generator.standard_normal((leaf.shape[0], rank), np.float32),
            generator.standard_normal((rank, leaf.shape[1]), np.float32),
        )
        for leaf in leaves
    }


@pytest.fixture(scope="module")
def pose_net(config) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    return {
        leaf.path: generator.standard_normal(leaf.shape).astype(np.float32)
        for leaf in network_leaves("pose_net", config)
    }


@pytest.fixture
def lora(config, pose_net, tmp_path):
    """A LoRA written here, of attention, with a PoseNet."""
    write_lora(tmp_path / "lora", factors(config, r"attn1\.to_q"), pose_net, config)
    return tmp_path / "lora"


def test_what_is_written_is_read(lora, config, pose_net):
    found, written = read_lora(lora, config), factors(config, r"attn1\.to_q")
    assert found.factors.keys() == written.keys()
    for layer, pair in written.items():
        np.testing.assert_array_equal(found.factors[layer].a, pair.a)
        np.testing.assert_array_equal(found.factors[layer].b, pair.b)
    for key, value in pose_net.items():
        np.testing.assert_array_equal(found.pose_net[key], value)


def test_several_loras_add_up_by_their_strengths(lora, converted_made, config, pose_net, tmp_path):
    """In kernels W + 0.5 A1 B1 - 2 A2 B2; PoseNet moves half of the way to the first LoRA's."""
    write_lora(tmp_path / "second", factors(config, r"attn1\.to_[qv]", seed=5, rank=3), {}, config)
    read = [(read_lora(lora, config), 0.5), (read_lora(tmp_path / "second", config), -2.0)]
    plain, found = (unet_params(converted_made, config, *loras) for loras in ([], read))
    first, second = (loras.factors for loras, _ in read)
    changed = 0
    for leaf in network_leaves("unet", config):
        layer, expected = leaf.path.removesuffix(".kernel"), plain[leaf.key]
        if layer in second:
            expected = expected - 2 * (second[layer].a @ second[layer].b).T
            changed += 1
        if layer in first:
            expected = expected + 0.5 * (first[layer].a @ first[layer].b).T
        np.testing.assert_allclose(found[leaf.key], expected, rtol=1e-5, atol=1e-5)
    assert changed == len(second) > len(first)
    unet, network = (load_network(converted_made, name, config, "float32") for name in ("unet", "pose_net"))
    own = {key: np.asarray(value) for key, value in flat_params(nnx.state(network)).items()}
    apply_loras(unet, network, read, sharding.replicated(sharding.sampling_mesh(1)))
    for key, value in flat_params(nnx.state(network)).items():
        np.testing.assert_allclose(value, 0.5 * own[key] + 0.5 * pose_net[key], rtol=1e-6, atol=1e-6)


def test_alpha_beside_the_factors_and_names_from_before_peft(lora, config):
    path = lora / "pytorch_lora_weights.safetensors"
    tensors = load_file(path)
    renamed = {
        key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value.bfloat16().contiguous()
        for key, value in tensors.items()
    }
    layers = {key.partition(".lora_")[0] for key in tensors}
    save_file(renamed | {f"{layer}.alpha": torch.tensor(6.0) for layer in layers}, path)
    for layer, (_, b) in read_lora(path, config).factors.items():
        expected = torch.tensor(factors(config, r"attn1\.to_q")[layer].b).bfloat16().float()
        np.testing.assert_array_equal(b, 6 / 2 * expected.numpy())


@pytest.mark.parametrize(
    ("text", "source", "strength"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("owner/name:-1", "owner/name", -1.0),
        ("gs://bucket/style", "gs://bucket/style", 1.0),
        ("gs://bucket/style:2", "gs://bucket/style", 2.0),
        ("C:\\style.safetensors", "C:\\style.safetensors", 1.0),
    ],
)
def test_strength_after_the_colon(text, source, strength):
    assert parse_lora(text) == (source, strength)


@pytest.mark.parametrize("strength", ["strong", "nan", "11", "-1e9", ""])
def test_bad_strength(strength):
    with pytest.raises(InputError, match=r"must be a number from -10 to 10, such as 0\.8"):
        parse_lora(f"style.safetensors:{strength}")


def test_missing_files(lora, config, tmp_path):
    with pytest.raises(InputError, match=r"there is no LoRA nowhere\.safetensors"):
        read_lora("nowhere.safetensors", config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no LoRA: neither pytorch_lora_weights\.safetensors nor"):
        read_lora(tmp_path / "empty", config)
    (lora / "pose_net.safetensors").unlink()
    with pytest.raises(InputError, match=r"was trained together with PoseNet; put its pose_net\.safetensors into"):
        read_lora(lora, config)


def change(path, edit) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def rename_all(tensors):
    for key in list(tensors):
        tensors[key.replace("unet.", "transformer.")] = tensors.pop(key)


def widen(tensors):
    key = next(key for key in tensors if "lora_A" in key)
    tensors[key] = torch.cat([tensors[key], tensors[key]], dim=1)


def lose_one(tensors):
    del tensors[next(key for key in tensors if "lora_B" in key)]


def break_one(tensors):
    tensors[next(iter(tensors))][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            rename_all,
            r"is not a LoRA of this model: \d+ of its \d+ tensors, among them transformer\.\S+, belong to no layer",
        ),
        (dict.clear, "is not a LoRA of this model: 0 of its 0 tensors belong to no layer"),
        (
            widen,
            r"is a LoRA of another model: \S+ has factors \(2, 64\) and \(32, 2\) where this model takes \(2, 32\)",
        ),
        (lose_one, "is damaged: .* has only one of lora_A and lora_B"),
        (break_one, "holds values that are not finite"),
    ],
)
def test_refused(lora, config, edit, message):
    path = lora / "pytorch_lora_weights.safetensors"
    change(path, edit)
    with pytest.raises(InputError, match=message):
        read_lora(path, config)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 99])
def test_other_files(content, config, tmp_path):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a LoRA: no safetensors file of floating-point numbers"):
        read_lora(path, config)


def test_pose_net_of_another_model(lora, config):
    change(lora / "pose_net.safetensors", lambda tensors: tensors.pop("pose_net.scale"))
    with pytest.raises(InputError, match="holds the PoseNet of another model"):
        read_lora(lora, config)


def test_convolutions_cannot_be_kept_apart(converted_made, config):
    pair = LowRank(np.zeros((3, 3, 8, 1), np.float32), np.zeros((1, 32), np.float32))
    loras = [(Lora({"conv_in": pair}, {}, ""), 1.0)]
    with pytest.raises(InputError, match="conv_in is a convolution"):
        unet_params(converted_made, config, *loras, merge=False)


@pytest.mark.slow
def test_a_lora_of_the_hub_is_fetched_with_its_pose_net(tmp_path):
    config, layer = ModelConfig.tiny(), "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    factors = {layer: LowRank(np.ones((64, 2), np.float32), np.ones((2, 64), np.float32))}
    write_lora(tmp_path / "lora", factors, flat_params(nnx.state(init_network("pose_net", config, 0))), config)
    files = {f"me/lora/{path.name}": path for path in (tmp_path / "lora").iterdir()}
    assert len(files) == 2
    with serve(files) as (_, endpoint):
        done = python(tmp_path / "cache", endpoint, "-c", READ, "me/lora")
    assert done.stdout.split() == [read_lora(tmp_path / "lora", config).sha256, layer], done.stderr
    offline = python(tmp_path / "cache", endpoint, "-c", READ, "me/lora", offline=True)
    assert offline.stdout == done.stdout, offline.stderr
