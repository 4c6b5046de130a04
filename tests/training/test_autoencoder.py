"""Training of the VAE: metrics, resuming to the bit, and a checkpoint that other commands can use."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from mimicmotion_jax.cli import train_vae
from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.dataset import Records
from mimicmotion_jax.data.encodings import Encoder, describe_encodings
from mimicmotion_jax.runtime.errors import InputError, run_script
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import model_config
from mimicmotion_jax.training.state import TrainState, abstract_state
from mimicmotion_jax.training.tasks.autoencoder import Autoencoder
from mimicmotion_jax.training.trainer import restore_or_initialise, save, train

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64
STEPS = 4


@pytest.fixture(scope="module")
def run(make_vae_config, tmp_path_factory) -> Autoencoder:
    """A task that was trained without interruption."""
    task = Autoencoder(
        make_vae_config(tmp_path_factory.mktemp("vae") / "whole", "sample_every=2", "save_every=2"), progress=False
    )
    assert train(task) is None
    return task


@pytest.fixture(scope="module")
def state(run) -> TrainState:
    """Its last state."""
    abstract = abstract_state(run.shapes, run.config.optimizer, run.config.steps, run.mesh)
    with RunCheckpoints(Path(run.config.output) / "checkpoints", 2) as checkpoints:
        return checkpoints.restore(abstract)[0]


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


def test_every_parameter_has_had_a_gradient(state):
    """By Adam's first moments, with two exceptions: softmax ignores a bias of the keys, and where blocks have one layer
    the decoder's attention does not run (as in the official class)."""
    moments = optax.tree.get(state.opt_state, "mu")
    assert moments.keys() == state.params.keys()
    without = {key for key, value in moments.items() if np.abs(value).max() < 1e-7}
    unused = re.compile(r"to_k\.bias|^vae\.decoder\.mid_block\.attentions")
    assert without == {key for key in moments if unused.search(key)}


@pytest.mark.slow  # the loop is that of `test_resume`
def test_stopped_and_resumed_is_the_same_to_the_bit(run, state, make_vae_config, tmp_path):
    """Two steps in one task, a checkpoint, two steps in another."""
    config = make_vae_config(tmp_path)
    for first in (0, 2):
        task = Autoencoder(config, progress=False)
        task.train_step = run.train_step  # which is compiled
        with RunCheckpoints(tmp_path / "checkpoints", 2) as checkpoints:
            found = restore_or_initialise(task, checkpoints)
            assert int(found.step) == first
            for _ in range(2):
                found, _ = task.step(found, task.next_batch())
            save(task, found, checkpoints)
        task.loader.close()
    ours, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (found, state))
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_a_bad_step_changes_nothing(run, state):
    poisoned = state.params["vae.encoder.conv_in.bias"].at[0].set(np.nan)
    state = state._replace(params=state.params | {"vae.encoder.conv_in.bias": poisoned})
    before = jax.device_get(state)
    after, metrics = run.step(jax.tree.map(jnp.copy, state), run.next_batch())
    run.loader.close()
    assert not metrics["finite"]
    assert np.isnan(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), before)


def test_result_encodes_training_videos_with_unit_variance(run):
    """With the code of `prepare_data.py encode=`; and `train.py encoders=` takes its sizes from there."""
    model = Path(run.config.output) / "model"
    config = load_config(TrainConfig, overrides=["model=tiny", f"encoders={model}"])
    with pytest.raises(InputError, match="the strides of PoseNet multiply to 8, but the VAE has 2 pixels"):
        model_config(config)
    config = model_config(dataclasses.replace(config, model=run.model))
    assert config.vae.block_out_channels == (16, 16)
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
        Autoencoder(make_vae_config(tmp_path / "run", *options), progress=False)
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


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("vae.latent_channels=8", "vae.latent_channels"),
        ("image_encoder.hidden_size=64", "image_encoder.hidden_size"),
        ("seed=1", "seed"),  # the image encoder is drawn from it
    ],
)
def test_a_run_of_another_model_is_not_continued(run, make_vae_config, option, key):
    with pytest.raises(InputError, match=f"other values of {key}:"):
        train(Autoencoder(make_vae_config(run.config.output, option), progress=False))


def test_command_line_ends_in_one_line(tmp_path, capsys):
    command = ["--config", str(ROOT / "configs" / "vae_synthetic.yaml"), f"output={tmp_path / 'run'}"]
    with pytest.raises(SystemExit, match="2"):
        run_script(lambda: train_vae.main([*command, "data.dataset=nowhere"]))()
    assert re.fullmatch(r"error: .*nowhere.*\n", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_pictures_that_fail_do_not_end_the_run(run, state, monkeypatch, caplog):
    monkeypatch.setattr(run, "validation", lambda *args: jnp.zeros(1 << 50))
    run.sample(state, 99)
    (record,) = caplog.records
    assert "reconstructions of step 99 could not be made, the run goes on: " in record.getMessage()
