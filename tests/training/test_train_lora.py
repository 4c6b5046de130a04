"""Training of low-rank adapters: what is trained, kept and resumed, and the same output from diffusers with PEFT."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import load_file
from tiny import TINY

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.checkpoint import load_network
from mimicmotion_jax.convert.engine import network_leaves, to_torch
from mimicmotion_jax.convert.lora import read_lora
from mimicmotion_jax.models.config import PoseNetConfig
from mimicmotion_jax.models.lora import attach_adapters, merge_adapters
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.resume import check_resume, describe_run
from mimicmotion_jax.training.state import init_state
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.template import flat_networks
from mimicmotion_jax.training.trainer import train

STEPS = 4
OPTIONS = [
    *("lora.rank=4", "lora.alpha=8", "trainable=['^pose_net']", "lora.base_dtype=float32"),
    *(f"steps={STEPS}", "save_every=2", "keep=9", "batch_size=2", "optimizer.learning_rate=0.01"),
]


class AdaptedUNet(PeftAdapterMixin, UNetSpatioTemporalConditionModel):
    """diffusers' UNet with diffusers' loader of LoRAs."""


def on_one_device(config) -> Diffusion:
    return Diffusion(config, progress=False, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A checkpoint that diffusers can have as well: it knows 32 groups in norms only."""
    pose_net = PoseNetConfig(channels=(8, 8, 16), strides=(2, 2, 2), out_channels=32)
    model = dataclasses.replace(TINY, pose_net=pose_net, window_size=4)
    directory = tmp_path_factory.mktemp("base") / "checkpoint"
    MimicMotionPipeline.random(model, dtype="float32", mesh=sharding.sampling_mesh(1)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def task(make_config, base, tmp_path_factory) -> Diffusion:
    """A task that has loaded its networks."""
    task = on_one_device(make_config(tmp_path_factory.mktemp("runs") / "lora", f"checkpoint={base}", *OPTIONS))
    task.params = task.load()
    task.loader.close()
    return task


@pytest.fixture(scope="module")
def exported(task) -> dict[str, np.ndarray]:
    """Random parameters of adapters and PoseNet, exported as if they had been trained."""
    generator = np.random.default_rng(0)
    params = {key: 0.1 * generator.standard_normal(x.shape, np.float32) for key, x in task.params.items()}
    task.export(init_state(params, task.config.optimizer, task.config.steps, task.mesh))
    return params


def test_adapters_of_attention_and_feed_forwards_are_trained_and_all_of_pose_net(task):
    """A spatial and a temporal block: 4 layers of self-attention, 2 of cross-attention, 2 or 4 of feed-forwards."""
    adapters = {key: np.asarray(x) for key, x in task.params.items() if key.startswith("unet.")}
    assert len(adapters) == 2 * ((4 + 2 + 2) + (4 + 2 + 4))
    for key, value in adapters.items():
        if key.endswith("lora.lora_b"):
            assert not value.any()
        else:  # PEFT: uniform in +-1 / sqrt(inputs), here at least 16 of them for 4 ranks
            assert 0.9 < np.abs(value).max() * value.shape[0] ** 0.5 <= 1
    pose_net = {f"pose_net.{leaf.path}" for leaf in network_leaves("pose_net", task.model)}
    assert task.params.keys() - adapters.keys() == pose_net
    assert not task.fixed.keys() & task.params.keys()


def test_the_file_holds_the_trained_factors(task, exported):
    lora = read_lora(Path(task.config.output) / "lora", task.model)
    assert set(lora.factors) == set(task.template.adapted)
    for layer, (a, b) in lora.factors.items():
        np.testing.assert_array_equal(a, exported[f"unet.{layer}.lora.lora_a"])
        np.testing.assert_array_equal(b, 2 * exported[f"unet.{layer}.lora.lora_b"])  # alpha / rank
    for key, value in lora.pose_net.items():
        np.testing.assert_array_equal(value, exported[f"pose_net.{key}"])


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    """One batch of three frames, and its conditions."""
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(1, 3, 8, 8, 8, generator=generator),
        "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(1, 1, 16, generator=generator),
        "added_time_ids": torch.tensor([[6.0, 127, 0.02]]),
    }


@pytest.fixture(scope="module")
def predict(inputs):
    """A function from our UNet to its prediction for `inputs`."""

    @jax.jit
    def run(unet, sample, timestep, encoder_hidden_states, added_time_ids):
        return unet(sample, timestep, unet.conditions(encoder_hidden_states, added_time_ids, sample.shape[1]))

    arrays = {key: value.numpy() for key, value in inputs.items()}
    arrays["sample"] = np.moveaxis(arrays["sample"], 2, -1)
    arrays["encoder_hidden_states"] = arrays["encoder_hidden_states"][:, 0]
    return lambda unet: np.asarray(run(unet, **arrays))


def diffusers_prediction(task, base, inputs) -> np.ndarray:
    """Prediction of diffusers' UNet with the base's weights, to which diffusers and PEFT added the LoRA of a run."""
    unet = AdaptedUNet(**task.model.unet.to_official())
    params = flat_networks({"unet": load_network(base, "unet", task.model)})
    leaves = network_leaves("unet", task.model)
    unet.load_state_dict({leaf.key: to_torch(params[f"unet.{leaf.path}"], leaf, None) for leaf in leaves})
    unet.load_lora_adapter(str(Path(task.config.output) / "lora"), prefix="unet", use_safetensors=True)
    with torch.no_grad():
        return np.moveaxis(unet.eval()(**inputs).sample.numpy(), 2, -1)


@pytest.mark.parametrize("adapt", [merge_adapters, pytest.param(attach_adapters, marks=pytest.mark.slow)])
def test_diffusers_and_peft_give_the_same_output(task, exported, base, predict, inputs, adapt, error):
    expected = diffusers_prediction(task, base, inputs)
    unet = load_network(base, "unet", task.model)
    without = predict(unet) if adapt is merge_adapters else None
    adapt(unet, read_lora(Path(task.config.output) / "lora", task.model).factors)
    assert error(predict(unet), expected) < 1e-5
    assert without is None or error(without, expected) > 1e-3


def test_peft_loads_the_file_without_diffusers(task, exported):
    """The keys without "unet." are those that PEFT looks for, and PEFT's scale is one without a stored alpha."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    stored = load_file(Path(task.config.output) / "lora" / "pytorch_lora_weights.safetensors")
    stored = {key.removeprefix("unet."): value for key, value in stored.items()}
    layers = sorted({key.partition(".lora_")[0] for key in stored})
    unet = UNetSpatioTemporalConditionModel(**task.model.unet.to_official())
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=layers), unet)
    result = set_peft_model_state_dict(unet, stored)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora" in key]


def test_frozen_weights_may_be_kept_in_half_precision(make_config, base, tmp_path):
    task = on_one_device(make_config(tmp_path, f"checkpoint={base}", *OPTIONS, "lora.base_dtype=bfloat16"))
    params = task.load()
    task.loader.close()
    assert {str(x.dtype) for x in task.fixed.values()} == {"bfloat16"}
    assert {str(x.dtype) for x in params.values()} == {"float32"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("trainable=['^unet']", r"trainable: unet\.\S+ belongs to the UNet, of which lora.rank trains adapters alone"),
        ("lora.targets=['to_z']", "lora.targets: no layer matches 'to_z'"),
        ("lora.targets=['(']", "lora.targets: '\\(' is not a regular expression"),
        ("lora.targets=['attn2.to_q']", "lora.targets: no layer matches 'attn2.to_q'"),
        ("checkpoint=null", "say of which one with checkpoint=DIR"),
    ],
)
def test_refused(make_config, base, tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        on_one_device(make_config(tmp_path, f"checkpoint={base}", "model=tiny", *OPTIONS, option))


@pytest.fixture(scope="module")
def trained(make_config, base, tmp_path_factory) -> Diffusion:
    """A run that was not interrupted."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    task = on_one_device(make_config(output, f"checkpoint={base}", *OPTIONS))
    assert train(task) is None
    return task


def losses(output: Path | str) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_adapter_learns_and_the_result_is_what_was_trained(trained, base, predict, inputs, error):
    lora = read_lora(Path(trained.config.output) / "lora", trained.model)
    assert not [layer for layer, (_, b) in lora.factors.items() if not b.any()]
    expected = diffusers_prediction(trained, base, inputs)
    unet = load_network(base, "unet", trained.model)
    merge_adapters(unet, lora.factors)
    assert error(predict(unet), expected) < 1e-5


@pytest.mark.slow
def test_going_on_from_a_checkpoint_gives_the_same_bits(trained, tmp_path):
    whole = trained.config
    config = dataclasses.replace(whole, output=str(tmp_path))
    shutil.copytree(Path(whole.output) / "checkpoints" / "2", tmp_path / "checkpoints" / "2")
    task = on_one_device(config)
    task.train_step = trained.train_step  # which is compiled
    assert train(task) is None
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 3
    for name in ("pytorch_lora_weights.safetensors", "pose_net.safetensors"):
        ours, theirs = (load_file(Path(run.output) / "lora" / name) for run in (config, whole))
        assert ours.keys() == theirs.keys()
        assert not [key for key in ours if not torch.equal(ours[key], theirs[key])]


@pytest.mark.parametrize("changed", [{"rank": 2}, {"alpha": 1.0}])
def test_another_rank_or_alpha_cannot_be_resumed(task, changed):
    other = on_one_device(dataclasses.replace(task.config, lora=dataclasses.replace(task.config.lora, **changed)))
    other.loader.close()
    saved, now = describe_run(task), describe_run(other)
    with pytest.raises(InputError, match=f"other values of lora.{next(iter(changed))}"):
        check_resume(saved, now, Path(task.config.output))


@pytest.mark.slow
def test_same_losses_on_a_mesh(trained, make_config, base, tmp_path):
    """Adapters are sharded and rematerialised as all parameters are."""
    mesh = ("mesh.data=1", "mesh.fsdp=2", "mesh.frames=2", "remat=true")
    config = make_config(tmp_path, f"checkpoint={base}", *OPTIONS, *mesh)
    assert train(Diffusion(config, progress=False, devices=jax.devices()[:4])) is None
    np.testing.assert_allclose(losses(tmp_path), losses(trained.config.output), rtol=1e-4)
