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
# All gradients take three times as long to compile; the slow meshes have them, `test_objective` has PyTorch's, and
# `models/test_sharded_blocks` those of a block on a mesh.
LAST_LAYER = "trainable=['unet.conv_out']"
METRICS = ["loss", "loss_hands", "loss_elsewhere", "grad_norm"]
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
    task = on_one_device(make_config(tmp_path_factory.mktemp("runs") / "whole", *OPTIONS, LAST_LAYER))
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
    assert not np.array_equal(exported["unet.conv_out.bias"], state.params["unet.conv_out.bias"])
    for key in exported.keys() - state.ema.keys():
        np.testing.assert_array_equal(exported[key], began[key])


@pytest.mark.slow
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


def first_steps(task: Diffusion) -> np.ndarray:
    """Metrics of two steps, a row for each."""
    state, rows = init_state(task.load(), task.config.optimizer, task.config.steps, task.mesh), []
    for _ in range(2):
        state, found = task.step(state, task.next_batch())
        rows.append([float(found[name]) for name in METRICS])
    task.loader.close()
    return np.array(rows)


@pytest.fixture(scope="module")
def with_all_gradients(make_config, tmp_path_factory) -> np.ndarray:
    """Metrics of the first steps of a run that trains everything, on one device."""
    return first_steps(on_one_device(make_config(tmp_path_factory.mktemp("runs") / "all", *OPTIONS)))


def on_mesh(config: TrainConfig) -> Diffusion:
    return Diffusion(
        config, progress=False, devices=jax.devices()[: config.mesh.data * config.mesh.fsdp * config.mesh.frames]
    )


MESH = ("mesh.data=2", "mesh.fsdp=2", "mesh.frames=2")


@pytest.mark.slow
def test_same_losses_on_a_mesh_and_in_parts(whole, make_config, tmp_path):
    """However a batch is spread over devices, and into however many parts it is split."""
    lines = (Path(whole.output) / "metrics.jsonl").read_text().splitlines()
    on_one = np.array([[json.loads(line)[name] for name in METRICS] for line in lines[:2]])
    found = first_steps(on_mesh(make_config(tmp_path, *OPTIONS, LAST_LAYER, *MESH, "accumulation=2")))
    np.testing.assert_allclose(found, on_one, rtol=1e-5)
    assert on_one[:, METRICS.index("loss_hands")].min() > 0  # hands are seen
    assert abs(on_one[0, 0] - on_one[1, 0]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param((*MESH, "accumulation=2", "remat=true"), id="remat"),
        pytest.param(("mesh.data=4", "mesh.fsdp=1"), id="data-parallel"),
        pytest.param(("mesh.data=1", "mesh.fsdp=1", "accumulation=4"), id="accumulation"),
        pytest.param(("mesh.data=1", "mesh.fsdp=2", "accumulation=2"), id="fsdp, accumulation"),
        pytest.param((*MESH, "accumulation=2"), id="all"),
    ],
)
def test_same_losses_with_all_gradients(with_all_gradients, make_config, tmp_path, options):
    found = first_steps(on_mesh(make_config(tmp_path, *OPTIONS, *options)))
    np.testing.assert_allclose(found, with_all_gradients, rtol=1e-5)
