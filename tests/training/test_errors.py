"""Wrong input ends in one sentence before anything long starts, and loses nothing."""

import dataclasses
import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from mimicmotion_jax.config import load_config
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.loop import Run
from mimicmotion_jax.training.networks import check_encodings, model_config
from mimicmotion_jax.training.state import TrainState, split_trainable

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.dataset=nowhere"], "nowhere"),
        (["data.num_frames=40"], "40 frames"),
        (["data.width=68"], "multiples of"),
        (["batch_size=6"], "batch_size=6 .* cannot be spread evenly over data x fsdp = 4 devices"),
        (["mesh.data=3"], "needs .* devices, but there are 4"),
        (["mesh.frames=4", "batch_size=2"], r"raise accumulation"),
        (["mesh.frames=3", "mesh.fsdp=1", "mesh.data=1"], "needs 3 devices, but there are 4"),
        (["checkpoint=nowhere"], "holds no checkpoint"),
        (["sampling.window_overlap=50"], r"^sampling\.window_overlap must lie between 0 and 2 for a window of 4"),
        (["trainable=[nothing]"], "no parameter matches 'nothing'"),
        (["trainable=['(']"], "no regular expression"),
        (["data.encodings=true", "objective.noise_aug_strength=0"], "encodings"),
    ],
)
def test_one_sentence_before_the_start(make_config, tmp_path, options, message):
    with pytest.raises(InputError, match=message) as error:
        Run(make_config(tmp_path / "run", *options), progress=False, devices=jax.devices()[:4])
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
        (["trainable=[]"], "trainable: .* at least 1 item"),
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
    """The dataset as if encodings of `weights` lay in it: what is compared before the start is in its metadata."""
    folder = tmp_path / "encoded"
    shutil.copytree(clips, folder)
    (metadata,) = folder.rglob("metadata.json")
    encodings = {"width": 64, "height": 64, "latent_shape": [8, 8, 4], "embedding_size": 16}
    sha256 = hashlib.sha256((weights / "manifest.json").read_bytes()).hexdigest()
    content = json.loads(metadata.read_text()) | {"encodings": encodings | {"checkpoint": sha256}}
    metadata.write_text(json.dumps(content))
    return [f"data.dataset={folder}", "data.encodings=true", "objective.noise_aug_strength=0"]


def test_encodings_of_other_encoders_are_refused(make_config, encoded, weights, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"sources": [{"name": "elsewhere"}]}))
    for options in ([f"checkpoint={other}"], ["checkpoint=null", "model=tiny", f"encoders={other}"]):
        with pytest.raises(InputError, match=rf"were not made with {other}; prepare the data again"):
            Run(make_config(tmp_path / "run", *encoded, *options), progress=False, devices=jax.devices()[:1])
    with pytest.raises(InputError, match="would draw its encoders at random; set encoders"):
        Run(
            make_config(tmp_path / "run", *encoded, "checkpoint=null", "model=tiny"),
            progress=False,
            devices=jax.devices()[:1],
        )
    for options in ([], ["checkpoint=null", f"encoders={weights}"]):
        check_encodings(make_config(tmp_path / "run", *encoded, *options))


def test_encoders_that_do_not_fit_are_told(make_config, weights, tmp_path):
    config = make_config(tmp_path, "checkpoint=null", "model=full", f"encoders={weights}")
    with pytest.raises(InputError, match=r"do not fit the model: the image encoder gives 16 numbers, .* takes 1024\.$"):
        model_config(config)


def test_run_of_another_model_is_not_continued(make_config, tmp_path):
    config = make_config(tmp_path)
    run = Run(config, progress=False, devices=jax.devices()[:1])
    run.save()
    run.checkpoints.finish()
    run.checkpoints.close()
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    other = dataclasses.replace(config, checkpoint=None, model=ModelConfig.tiny())
    with pytest.raises(InputError, match="a run of another model"):
        Run(other, progress=False, devices=jax.devices()[:1])
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_damaged_checkpoint(make_config, tmp_path):
    config = make_config(tmp_path)
    run = Run(config, progress=False, devices=jax.devices()[:1])
    run.save()
    run.checkpoints.finish()
    run.checkpoints.close()
    for path in (tmp_path / "checkpoints" / "0" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be restored") as error:
        Run(config, progress=False, devices=jax.devices()[:1])
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The checkpoints of a run, their files, and how to read them."""
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
    """Whichever it is; and what orbax's other reads have to say afterwards is not shown."""
    folder, abstract = small_run
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    told = {}
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
            told[file] = str(error)
        finally:
            checkpoints.close()
    assert all("\n" not in text and "cannot be restored" in text for text in told.values())
    assert max(files, key=lambda file: (folder / file).stat().st_size) in told
    gc.collect()
    assert shown == []


def test_full_disk_is_noticed_before_the_start(make_config, tmp_path, monkeypatch):
    """The room on the disk is the system's word; here it is a small one."""
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("mimicmotion_jax.runtime.atomic_files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"the weights take [\d.]+[kM]B and there is room for"):
        Run(make_config(tmp_path), progress=False, devices=jax.devices()[:1])


def test_output_that_is_a_file(make_config, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write to"):
        RunCheckpoints(epath.Path(tmp_path / "file" / "checkpoints"), 1)
    assert (tmp_path / "file").read_text() == "mine"


def test_command_line_ends_in_one_line(tmp_path):
    command = [sys.executable, "train.py", "--config", "configs/train_tiny.yaml", f"output={tmp_path}", "batch=3"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*unknown key 'batch' .*\n", done.stderr)


def test_what_is_trained():
    keys = ["unet.a.norm2.scale", "unet.t.transformer_blocks.0.norm2.scale", "unet.b.kernel", "pose_net.scale"]
    assert split_trainable(keys, ["^unet"]) == (
        ["unet.a.norm2.scale", "unet.b.kernel"],
        ["unet.t.transformer_blocks.0.norm2.scale", "pose_net.scale"],
    )
