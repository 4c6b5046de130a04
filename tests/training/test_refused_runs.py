"""Wrong input ends in one sentence before anything long starts, and nothing is lost."""

import dataclasses
import gc
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli import train as cli_train
from mimicmotion_jax.config import load_config
from mimicmotion_jax.runtime.errors import InputError, run_script
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import check_encodings, model_config
from mimicmotion_jax.training.resume import check_resume
from mimicmotion_jax.training.state import TrainState
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.template import split_trainable
from mimicmotion_jax.training.trainer import restore_or_initialise, save, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.dataset=nowhere"], "nowhere"),
        (["data.num_frames=40"], "40 frames"),
        (["data.width=66"], "multiples of"),
        (["batch_size=6"], "batch_size=6 .* cannot be split evenly over data x fsdp = 4 devices"),
        (["mesh.data=3"], "needs .* devices, but there are 4"),
        (["mesh.frames=4", "batch_size=2"], r"raise accumulation"),
        (["mesh.frames=3", "mesh.fsdp=1", "mesh.data=1"], "needs 3 devices, but there are 4"),
        (["checkpoint=nowhere"], "holds no checkpoint"),
        (["sampling.window_overlap=50"], r"^sampling\.window_overlap must lie between 0 and 2 for a window of 4"),
        (["trainable=[nothing]"], "no parameter matches 'nothing'"),
        (["trainable=['(']"], "not a regular expression"),
        (["data.encodings=true", "objective.noise_aug_strength=0"], "encodings"),
    ],
)
def test_one_sentence_before_the_start(make_config, tmp_path, options, message):
    with pytest.raises(InputError, match=message) as error:
        Diffusion(make_config(tmp_path / "run", *options), progress=False, devices=jax.devices()[:4])
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["optimiser.learning_rate=1"], "unknown key 'optimiser"),
        (["data.frames=3"], "unknown key 'data.frames'"),
        (["batch_size=5", "accumulation=2"], "must be a multiple of accumulation"),
        (["data.num_frames=1"], "at least 2"),
        (["objective.dropout=0.9"], "objective.dropout"),
        (["trainable=[]"], "trainable names no parameter"),
        (["lora.rank=4", "distillation.guidance_scale=2"], "leave lora.rank out"),
        (["optimizer.weight_decay=.inf"], r"optimizer\.weight_decay: input should be a finite number, not inf\.$"),
        (["optimizer.eps=.inf"], r"optimizer\.eps: .*finite"),
        (["optimizer.clip_norm=.nan"], r"optimizer\.clip_norm: .*finite"),
        (["data.encodings=true"], "noise augmentation acts on pixels"),
    ],
)
def test_wrong_configuration(options, message):
    with pytest.raises(InputError, match=message):
        load_config(TrainConfig, overrides=options)


@pytest.fixture
def encoded(clips, weights, tmp_path):
    """Options for the dataset with metadata of encodings by `weights`, which is all that is compared at the start."""
    folder = tmp_path / "encoded"
    shutil.copytree(clips, folder)
    (metadata,) = folder.rglob("metadata.json")
    encodings = {"width": 64, "height": 64, "latent_shape": [16, 16, 4], "embedding_size": 16}
    sha256 = hashlib.sha256((weights / "manifest.json").read_bytes()).hexdigest()
    content = json.loads(metadata.read_text()) | {"encodings": encodings | {"checkpoint": sha256}}
    metadata.write_text(json.dumps(content))
    return [f"data.dataset={folder}", "data.encodings=true", "objective.noise_aug_strength=0"]


def test_encodings_of_other_encoders_are_refused(make_config, encoded, weights, smallest_model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"sources": [{"name": "elsewhere"}]}))
    changes = ({"checkpoint": str(other)}, {"checkpoint": None, "model": smallest_model, "encoders": str(other)})
    for change in changes:
        config = dataclasses.replace(make_config(tmp_path / "run", *encoded), **change)
        with pytest.raises(InputError, match=rf"were not made with {other}; prepare the data again"):
            Diffusion(config, progress=False, devices=jax.devices()[:1])
    with pytest.raises(InputError, match="would initialise its encoders at random; set encoders"):
        Diffusion(
            make_config(tmp_path / "run", *encoded, "checkpoint=null", "model=tiny"),
            progress=False,
            devices=jax.devices()[:1],
        )
    for options in ([], ["checkpoint=null", f"encoders={weights}"]):
        check_encodings(make_config(tmp_path / "run", *encoded, *options))


def test_encoders_that_do_not_fit_are_refused(make_config, weights, tmp_path):
    config = make_config(tmp_path, "checkpoint=null", "model=full", f"encoders={weights}")
    with pytest.raises(InputError, match=r"do not fit the model: the image encoder gives 16 numbers, .* takes 1024\.$"):
        model_config(config)


@pytest.fixture(scope="module")
def saved_once(make_config, tmp_path_factory):
    """Configuration of a run that was saved at step 0."""
    config = make_config(tmp_path_factory.mktemp("saved") / "run")
    task = Diffusion(config, progress=False, devices=jax.devices()[:1])
    with RunCheckpoints(Path(config.output) / "checkpoints", 1) as checkpoints:
        save(task, restore_or_initialise(task, checkpoints), checkpoints)
    task.loader.close()
    return config


@pytest.fixture
def saved_run(saved_once, tmp_path):
    """Configuration of a copy of that run, and its files."""
    shutil.copytree(saved_once.output, tmp_path / "run")
    config = dataclasses.replace(saved_once, output=str(tmp_path / "run"))
    return config, sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_a_run_is_continued_only_with_its_own_model_and_encoders(saved_run, make_config, weights, tmp_path):
    """Whichever way the model or its encoders would change: the option is named, and nothing is touched."""
    config, files = saved_run
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"sources": [{"name": "elsewhere"}]}))
    same_sizes = checkpoint.read_config(weights)
    changes = {
        "checkpoint, seed": {"checkpoint": None, "model": same_sizes},  # random VAE and CLIP
        "checkpoint, encoders, seed": {"checkpoint": None, "encoders": str(weights), "model": same_sizes},
        "checkpoint": {"checkpoint": str(other)},
        "trainable": {"trainable": ("^pose_net",)},
        "model.window_size": {"data": dataclasses.replace(config.data, num_frames=5)},
    }
    for keys, change in changes.items():
        task = Diffusion(dataclasses.replace(config, **change), progress=False, devices=jax.devices()[:1])
        with pytest.raises(InputError, match=rf"other values of {re.escape(keys)}:") as error:
            train(task)
        assert "\n" not in str(error.value)
    assert sorted(path for path in Path(config.output).rglob("*") if path.is_file()) == files

    moved = tmp_path / "moved"
    shutil.copytree(weights, moved)
    task = Diffusion(dataclasses.replace(config, checkpoint=str(moved)), progress=False, devices=jax.devices()[:1])
    with RunCheckpoints(Path(config.output) / "checkpoints", 1) as checkpoints:
        restore_or_initialise(task, checkpoints)


def test_options_that_a_run_did_not_know_are_null():
    """A run of an older release goes on where a newer option is not used, and only there."""
    config = {"optimizer": {"decay": "none"}}
    saved = {"identity": {"model": {"size": 1}}, "dataset": "d", "config": config}
    now = {**saved, "identity": {"model": {"size": 1}, "distillation.teacher": None}, "config": config | {"lora": None}}
    assert check_resume(saved, now, epath.Path("run")) == []
    with pytest.raises(InputError, match=r"other values of distillation\.teacher"):
        check_resume(saved, now | {"identity": {"model": {"size": 1}, "distillation.teacher": "a"}}, epath.Path("run"))


def test_encoders_from_the_seed_need_the_same_seed(make_config, smallest_model, tmp_path):
    tasks = [
        Diffusion(
            dataclasses.replace(make_config(tmp_path, *options, f"seed={seed}"), model=smallest_model),
            progress=False,
            devices=jax.devices()[:1],
        )
        for options in (["checkpoint=null"], [])
        for seed in (0, 1)
    ]
    random, again, loaded, same = (task.identity() for task in tasks)
    assert random != again
    assert loaded == same


def test_damaged_checkpoint(saved_run):
    config, _ = saved_run
    for path in (Path(config.output) / "checkpoints" / "0" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be restored") as error:
        train(Diffusion(config, progress=False, devices=jax.devices()[:1]))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Folder of a run's checkpoints, and the abstract state to restore."""
    folder = tmp_path_factory.mktemp("small")
    params = {name: jnp.asarray(np.random.default_rng(0).normal(size=(200, 300)), jnp.float32) for name in "abc"}
    state = TrainState(step=jnp.asarray(3), params=params, opt_state=(jnp.zeros(3),), ema={})
    checkpoints = RunCheckpoints(folder, 1)
    checkpoints.save(state, {"position": 7}, {"seed": 1})
    checkpoints.finish()
    checkpoints.close()
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    return folder, abstract


@pytest.mark.parametrize("kept", [0, 0.5])
def test_one_damaged_file_of_a_run_is_one_sentence(small_run, tmp_path, monkeypatch, kept):
    """Whichever file it is; orbax's messages about its other reads are not shown."""
    folder, abstract = small_run
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    messages = {}
    for number, file in enumerate(files):
        damaged = tmp_path / str(number)
        shutil.copytree(folder, damaged)
        content = (damaged / file).read_bytes()
        (damaged / file).write_bytes(content[: int(kept * len(content))])
        checkpoints = RunCheckpoints(damaged, 1)
        try:
            assert checkpoints.read_run() == {"seed": 1}
            checkpoints.restore(abstract)
        except InputError as error:
            messages[file] = str(error)
        finally:
            checkpoints.close()
    assert all("\n" not in text and "cannot be restored" in text for text in messages.values())
    assert max(files, key=lambda file: (folder / file).stat().st_size) in messages
    gc.collect()
    assert shown == []


def test_output_that_is_a_file(make_config, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write to"):
        RunCheckpoints(epath.Path(tmp_path / "file" / "checkpoints"), 1)
    assert (tmp_path / "file").read_text() == "mine"


def test_command_line_ends_in_one_line(tmp_path, capsys):
    command = ["--config", str(ROOT / "configs" / "train_tiny.yaml"), f"output={tmp_path}", "batch=3"]
    with pytest.raises(SystemExit, match="2"):
        run_script(lambda: cli_train.main(command))()
    assert re.fullmatch(r"error: .*unknown key 'batch' .*\n", capsys.readouterr().err)


def test_trainable_parameters():
    keys = ["unet.a.norm2.scale", "unet.t.transformer_blocks.0.norm2.scale", "unet.b.kernel", "pose_net.scale"]
    assert split_trainable(keys, ["^unet"]) == (
        ["unet.a.norm2.scale", "unet.b.kernel"],
        ["unet.t.transformer_blocks.0.norm2.scale", "pose_net.scale"],
    )
