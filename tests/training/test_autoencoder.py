"""The VAE's training: the loss by PyTorch's formulas, resuming to the bit, and a checkpoint that others can use."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.dataset import Records
from mimicmotion_jax.data.encodings import Encoder, describe_encodings
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.initial import initial_params
from mimicmotion_jax.training.autoencoder.loss import (
    AutoencoderLossConfig,
    autoencoder_loss,
    gradient_error,
    kl_divergence,
)
from mimicmotion_jax.training.autoencoder.run import VAERun
from mimicmotion_jax.training.autoencoder.step import VAETemplate
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import model_config

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64
STEPS = 4


@pytest.fixture(scope="module")
def make_vae_config(clips):
    """A function from an output folder and `key=value` overrides to the configuration of a short run."""

    def make(output: Path, *overrides: str) -> VAETrainConfig:
        base = [
            *(f"output={output}", f"data.dataset={clips}", f"data.width={SIZE}", f"data.height={SIZE}"),
            *("data.num_frames=2", "data.interval=[1, 2]"),
            *("vae.block_out_channels=[32, 32]", "vae.layers_per_block=1", "vae.norm_num_groups=8"),
            *("image_encoder.hidden_size=32", "image_encoder.intermediate_size=64", "image_encoder.projection_dim=16"),
            *(
                "image_encoder.num_hidden_layers=1",
                "image_encoder.num_attention_heads=2",
                "image_encoder.patch_size=32",
            ),
            *(f"steps={STEPS}", "batch_size=2", "num_validation=2", "log_every=1", "save_every=100"),
            *("optimizer.learning_rate=1.0e-3", "optimizer.warmup_steps=2", "optimizer.decay=cosine"),
        ]
        return load_config(VAETrainConfig, overrides=[*base, *overrides])

    return make


@pytest.fixture(scope="module")
def run(make_vae_config, tmp_path_factory) -> VAERun:
    """One without interruption, after its end."""
    run = VAERun(make_vae_config(tmp_path_factory.mktemp("vae") / "whole", "sample_every=2"), progress=False)
    assert run.train() is None
    return run


def torch_gradient_error(error: np.ndarray, weights: np.ndarray) -> float:
    """The pyramid of differences, channels first."""
    e, w = (torch.from_numpy(x.reshape(-1, *x.shape[2:])).permute(0, 3, 1, 2) for x in (error, weights))
    terms = []
    for _ in range(3):
        down = (w[:, :, :-1] + w[:, :, 1:]) / 2 * (e[:, :, 1:] - e[:, :, :-1]).abs()
        across = (w[..., :-1] + w[..., 1:]) / 2 * (e[..., 1:] - e[..., :-1]).abs()
        terms.append(down.mean() + across.mean())
        e, w = F.avg_pool2d(e, 2), F.avg_pool2d(w, 2)
    return float(sum(terms) / 3)


def test_terms_equal_pytorch():
    random = np.random.default_rng(0)
    error = random.standard_normal((2, 3, 22, 16, 3)).astype(np.float32)  # 22 halves to 11 and then to 5
    weights = random.uniform(1, 4, (2, 3, 22, 16, 1)).astype(np.float32)
    ours = gradient_error(jnp.asarray(error), jnp.asarray(weights))
    np.testing.assert_allclose(ours, torch_gradient_error(error, weights), rtol=1e-5)

    mean, logvar = random.standard_normal((2, 2, 5, 4)).astype(np.float32)
    normal = torch.distributions.Normal
    posterior = normal(torch.from_numpy(mean), torch.from_numpy(np.exp(logvar / 2)))
    expected = torch.distributions.kl_divergence(posterior, normal(0.0, 1.0)).mean()
    np.testing.assert_allclose(kl_divergence(jnp.asarray(mean), jnp.asarray(logvar)), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    random = np.random.default_rng(1)
    hand_mask = np.zeros((2, 2, 8, 8), bool)
    hand_mask[1, :, 2:4, 3:7] = True
    arrays = {
        "frames": random.integers(0, 256, (2, 2, 16, 16, 3), np.uint8),
        "hand_mask": hand_mask,
        "noise": random.standard_normal((2, 2, 8, 8, 4)).astype(np.float32),
    }
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def test_loss_equals_pytorch(make_vae_config, tmp_path, batch):
    """Of this VAE's own moments and frames; the network itself has its tests elsewhere."""
    model = make_vae_config(tmp_path).model(1.0)
    vae = VAETemplate(model).network(initial_params(model, 0))
    options = AutoencoderLossConfig(hand_weight=3.0, squared_weight=2.0, gradient_weight=0.5, kl_weight=0.1)
    pixels = np.float32(batch["frames"]) / np.float32(127.5) - 1

    @jax.jit
    def ours(noise):
        mean, logvar = vae.encode(jnp.asarray(pixels.reshape(4, 16, 16, 3)))
        latents = (mean + jnp.sqrt(jnp.exp(logvar)) * noise.reshape(mean.shape)).reshape(noise.shape)
        return mean, logvar, vae.decode(latents), autoencoder_loss(vae, **batch, config=options)

    mean, logvar, decoded, (loss, parts) = jax.device_get(ours(batch["noise"]))
    error = decoded - pixels
    hands = np.kron(batch["hand_mask"], np.ones((1, 1, 2, 2), bool))[..., None]
    weights = np.where(hands, np.float32(3), np.float32(1))
    kl = 0.5 * np.mean(mean**2 + np.exp(logvar) - 1 - logvar)
    gradient = torch_gradient_error(error, weights)
    close = np.mean(weights * np.abs(error)) + 2 * np.mean(weights * error**2)
    np.testing.assert_allclose(loss, close + 0.5 * gradient + 0.1 * kl, rtol=1e-5)
    inside = np.broadcast_to(hands, error.shape)
    expected = {
        "l1_hands": np.abs(error[inside]).mean(),
        "l1_elsewhere": np.abs(error[~inside]).mean(),
        "gradient": gradient,
        "kl": kl,
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, err_msg=name)


def test_start_passes_pictures_through(make_vae_config, tmp_path):
    """Halving averages, doubling repeats, residual blocks of equal widths return what they get."""
    model = make_vae_config(tmp_path).model(1.0)
    vae = VAETemplate(model).network(initial_params(model, 0))
    x = np.random.default_rng(2).standard_normal((2, 6, 8, 32)).astype(np.float32)
    halved = vae.encoder.down_blocks[0].downsamplers[0](jnp.asarray(x))
    np.testing.assert_allclose(halved, x.reshape(2, 3, 2, 4, 2, 32).mean((2, 4)), atol=1e-6)
    doubled = vae.decoder.up_blocks[0].upsamplers[0](jnp.asarray(x))
    np.testing.assert_allclose(doubled, x.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6)
    block = vae.decoder.up_blocks[0].resnets[0]
    np.testing.assert_allclose(block(jnp.asarray(x[None])), x[None], atol=1e-6)


def test_start_carries_colours(make_vae_config, tmp_path):
    """Latents are the blocks' mean colours, by three directions at right angles, and these alone are painted."""
    model = make_vae_config(tmp_path, "vae.block_out_channels=[32, 64, 32]").model(1.0)
    vae = VAETemplate(model).network(initial_params(model, 0))
    picture = np.random.default_rng(3).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    latents = np.asarray(vae.encode(jnp.asarray(picture))[0])[..., :3].reshape(-1, 3)
    blocks = picture.reshape(8, 4, 8, 4, 3).mean((1, 3)).reshape(-1, 3)
    directions = np.float32([[1, 1, 1], [1, -1, 0], [1, 1, -2]])
    for k, direction in enumerate(directions):
        assert np.corrcoef(latents[:, k], blocks @ direction)[0, 1] > 0.99
    painted = np.asarray(vae.decode(vae.encode(jnp.asarray(picture))[0][:, None]))[0, 0].reshape(8, 4, 8, 4, 3)
    np.testing.assert_allclose(painted, np.broadcast_to(painted[:, :1, :, :1], painted.shape), atol=1e-5)
    for direction in directions:
        assert np.corrcoef(painted[:, 0, :, 0].reshape(-1, 3) @ direction, blocks @ direction)[0, 1] > 0.95


def test_numbers_and_pictures(run):
    lines = [json.loads(line) for line in (Path(run.config.output) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {"loss", "l1_hands", "l1_elsewhere", "gradient", "kl", "grad_norm", "learning_rate"} <= lines[-1].keys()
    checks = (Path(run.config.output) / "validation" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in checks] == [2, 4]
    assert all(0 < json.loads(line)["psnr"] < 60 for line in checks)
    pictures = sorted((Path(run.config.output) / "samples").iterdir())
    assert [path.name for path in pictures] == ["step_0000002.png", "step_0000004.png"]
    width, height = Image.open(pictures[0]).size
    assert width > 2 * SIZE
    assert height > 2 * SIZE


def test_every_parameter_has_had_a_gradient(run):
    """By Adam's first moments. But: softmax ignores a bias of the keys, and where blocks have one layer the decoder's
    attention does not run (as in the official class)."""
    moments = optax.tree.get(run.state.opt_state, "mu")
    assert moments.keys() == run.state.params.keys()
    without = {key for key, value in moments.items() if np.abs(value).max() < 1e-7}
    unused = re.compile(r"to_k\.bias|^decoder\.mid_block\.attentions")
    assert without == {key for key in moments if unused.search(key)}


def test_stopped_and_resumed_is_the_same_to_the_bit(run, make_vae_config, tmp_path):
    config = make_vae_config(tmp_path)
    stopped = VAERun(config, progress=False)
    stopped.step_function = run.step_function  # which is compiled
    for _ in range(2):
        stopped.advance()
    stopped.save()
    stopped.checkpoints.finish()
    stopped.loader.close()
    resumed = VAERun(config, progress=False)
    resumed.step_function = run.step_function
    assert int(resumed.state.step) == 2
    for _ in range(2):
        resumed.advance()
    resumed.loader.close()
    ours, theirs = (jax.tree_util.tree_leaves_with_path(state) for state in (resumed.state, run.state))
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_a_bad_step_changes_nothing(run):
    poisoned = run.state.params["encoder.conv_in.bias"].at[0].set(np.nan)
    state = run.state._replace(params=run.state.params | {"encoder.conv_in.bias": poisoned})
    before = jax.device_get(state)
    used = next(run.loader)
    run.loader.close()
    after, metrics = run.step_function(
        jax.tree.map(jnp.copy, state), {key: used[key] for key in ("index", "frames", "hand_mask")}
    )
    assert not metrics["finite"]
    assert np.isnan(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), before)


def test_result_encodes_training_videos_with_unit_variance(run):
    """As `prepare_data.py encode=` does it, and `train.py encoders=` takes its sizes from there."""
    model = Path(run.config.output) / "model"
    config = load_config(TrainConfig, overrides=["model=tiny", f"encoders={model}"])
    with pytest.raises(InputError, match="the strides of PoseNet multiply to 8, but the VAE has 2 pixels"):
        model_config(config)
    config = model_config(dataclasses.replace(config, model=run.model))
    assert config.vae.block_out_channels == (32, 32)
    encode = Encoder.load(model, 4)
    latents = np.concatenate([encode(record, SIZE, SIZE).latents for record in Records(run.config.data.dataset)])
    assert latents.shape[1:] == describe_encodings(model, SIZE, SIZE).latent_shape == (32, 32, 4)
    assert abs(latents.astype(np.float64).std() * config.vae.scaling_factor - 1) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.dataset=nowhere"], "nowhere"),
        (["data.width=65"], "65x64 is no multiple of 2"),
        (["validation=nowhere"], "nowhere"),
        (["data.num_frames=40"], "40 frames"),
    ],
)
def test_one_sentence_before_the_start(make_vae_config, tmp_path, options, message):
    with pytest.raises(InputError, match=message) as error:
        VAERun(make_vae_config(tmp_path / "run", *options), progress=False)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.encodings=true"], "trained on pixels"),
        (["vae.block_out_channels=[32, 40]"], "multiples of norm_num_groups"),
        (["loss.hand_weight=0.5"], "loss.hand_weight"),
        (["vae.widths=[32]"], "unknown key 'vae.widths'"),
    ],
)
def test_wrong_configuration(options, message):
    with pytest.raises(InputError, match=message):
        load_config(VAETrainConfig, overrides=options)


def test_run_of_another_vae_is_not_continued(run, make_vae_config):
    with pytest.raises(InputError, match="a run of another VAE"):
        VAERun(make_vae_config(run.config.output, "vae.latent_channels=8"), progress=False)


def test_command_line_ends_in_one_line(tmp_path):
    command = [sys.executable, "train_vae.py", "--config", "configs/vae_synthetic.yaml", f"output={tmp_path / 'run'}"]
    done = subprocess.run([*command, "data.dataset=nowhere"], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*nowhere.*\n", done.stderr)
    assert not (tmp_path / "run").exists()


def test_pictures_that_fail_do_not_end_the_run(run, monkeypatch, caplog):
    monkeypatch.setattr(run, "validation", lambda *args: jnp.zeros(1 << 50))
    run.sample(99)
    (record,) = caplog.records
    assert "reconstructions of step 99 could not be made, the run goes on: the device's memory" in record.getMessage()
