"""A whole run of the real model: what it leaves, that it goes on to the same bits, and the same losses on any mesh.

(`test_trainer.py` has kills and signals, `test_processes.py` the same with the real model.)
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.training.checkpoints import RunCheckpoints
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.state import abstract_state, init_state
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.trainer import train
from mimicmotion_jax.video.decode import open_video

STEPS = 4
OPTIONS = [
    *(f"steps={STEPS}", "save_every=2", "keep=9", f"sample_every={STEPS}", "num_samples=1"),
    *("sampling.num_inference_steps=2", "objective.fps=25", "objective.motion_bucket_id=90", "batch_size=8"),
]


def on_one_device(config: TrainConfig) -> Diffusion:
    return Diffusion(config, progress=False, devices=jax.devices()[:1])


def weights(directory: Path) -> dict[str, np.ndarray]:
    """Read every array of a checkpoint."""
    model = checkpoint.read_config(directory)
    found = {}
    for name in NETWORKS:
        params = checkpoint.flat_params(nnx.state(checkpoint.load_network(directory, name, model)))
        found |= {f"{name}.{key}": np.asarray(value) for key, value in params.items()}
    return found


@pytest.fixture(scope="module")
def trained(make_config, tmp_path_factory) -> Diffusion:
    """A task that was trained without interruption."""
    task = on_one_device(make_config(tmp_path_factory.mktemp("runs") / "whole", *OPTIONS))
    assert train(task) is None
    return task


@pytest.fixture(scope="module")
def whole(trained) -> TrainConfig:
    """The configuration of that run."""
    return trained.config


def test_metrics_are_written_for_every_step(whole):
    lines = [json.loads(line) for line in (Path(whole.output) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {"loss", "loss_hands", "loss_elsewhere", "grad_norm", "learning_rate", "samples_per_second"} <= lines[
        1
    ].keys()
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert list((Path(whole.output) / "tensorboard").iterdir())


def test_sample_video(whole):
    (video,) = (Path(whole.output) / "samples").iterdir()
    assert video.name == f"step_{STEPS:07d}_0.mp4"
    frames = np.stack(list(open_video(video).frames()))
    assert len(frames) == whole.data.num_frames - 1
    assert frames.std() > 10


def test_exported_model_holds_the_averages_and_the_encoders_it_began_with(trained, whole):
    abstract = abstract_state(trained.shapes, whole.optimizer, whole.steps, trained.mesh)
    with RunCheckpoints(Path(whole.output) / "checkpoints", 9) as checkpoints:
        state, _ = checkpoints.restore(abstract)
    exported, began = weights(Path(whole.output) / "model"), weights(Path(whole.checkpoint))
    for key, value in state.ema.items():
        np.testing.assert_array_equal(exported[key], value)
    assert not np.array_equal(exported["pose_net.scale"], state.params["pose_net.scale"])
    for key in exported.keys() - state.ema.keys():
        np.testing.assert_array_equal(exported[key], began[key])


def test_manifests_tell_trained_models_apart(whole, make_config, tmp_path):
    """Encodings and resumed runs know a checkpoint by the hash of its manifest."""
    config = make_config(tmp_path / "half", f"checkpoint={whole.output}/model", "export_dtype=float16")
    task = on_one_device(config)
    state = init_state(task.load(), config.optimizer, config.steps, task.mesh)
    task.export(state)
    task.export(state._replace(ema={key: 2 * np.asarray(value) for key, value in state.ema.items()}))
    trained, manifest = (checkpoint.read_manifest(Path(c.output) / "model") for c in (whole, config))
    assert {network["dtype"] for network in manifest["networks"].values()} == {"float16"}
    assert trained["sources"][-1]["name"] == f"trained for {STEPS} steps"
    assert manifest["sources"][:-1] == trained["sources"]
    first = checkpoint.manifest_sha256(Path(config.output) / "model")
    task.export(state)
    assert checkpoint.manifest_sha256(Path(config.output) / "model") != first


def test_exported_model_knows_how_to_sample(whole):
    options = checkpoint.read_sampling(Path(whole.output) / "model")
    assert (options["width"], options["height"]) == (64, 64)  # the official rule gives another long side
    assert (options["num_inference_steps"], options["antialias"]) == (2, whole.data.antialias)
    assert (options["fps"], options["motion_bucket_id"], options["noise_aug_strength"]) == (25, 90, 0.02)
    assert "seed" not in options


def test_going_on_from_a_checkpoint_gives_the_same_bits(trained, whole, tmp_path):
    config = dataclasses.replace(whole, output=str(tmp_path), sample_every=None)
    shutil.copytree(Path(whole.output) / "checkpoints" / "2", tmp_path / "checkpoints" / "2")
    task = on_one_device(config)
    task.train_step = trained.train_step  # which is compiled
    assert train(task) is None
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 3
    ours, theirs = (weights(Path(run.output) / "model") for run in (config, whole))
    assert ours.keys() == theirs.keys()
    assert not [key for key in ours if not np.array_equal(ours[key], theirs[key])]


@pytest.mark.parametrize(
    ("num_devices", "mesh"),
    [
        pytest.param(8, {"data": 2, "fsdp": 2, "frames": 2, "accumulation": 2}, id="all"),
        pytest.param(8, {"data": 2, "fsdp": 2, "frames": 2, "remat": True}, id="remat", marks=pytest.mark.slow),
        pytest.param(4, {"data": 4, "fsdp": 1}, id="data-parallel", marks=pytest.mark.slow),
        pytest.param(1, {"accumulation": 4}, id="accumulation", marks=pytest.mark.slow),
        pytest.param(2, {"fsdp": 2, "accumulation": 2}, id="fsdp, accumulation", marks=pytest.mark.slow),
    ],
)
def test_same_losses_on_any_mesh(whole, make_config, tmp_path, num_devices, mesh):
    """However a batch is spread over devices, and into however many parts it is split."""
    changes = [f"{'' if name in ('accumulation', 'remat') else 'mesh.'}{name}={value}" for name, value in mesh.items()]
    config = make_config(tmp_path, *OPTIONS, *changes)
    task = Diffusion(config, progress=False, devices=jax.devices()[:num_devices])
    state = init_state(task.load(), config.optimizer, config.steps, task.mesh)
    metrics = Path(whole.output) / "metrics.jsonl"
    on_one = [json.loads(line) for line in metrics.read_text().splitlines()][:2]
    names = ["loss", "loss_hands", "loss_elsewhere", "grad_norm"]
    for expected in on_one:
        state, found = task.step(state, task.next_batch())
        np.testing.assert_allclose([found[name] for name in names], [expected[name] for name in names], rtol=1e-5)
    task.loader.close()
    assert min(line["loss_hands"] for line in on_one) > 0  # hands are seen
    assert abs(on_one[0]["loss"] - on_one[1]["loss"]) > 0.01
