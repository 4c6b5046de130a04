"""Whole runs: stopped, killed and resumed they end with the same bits; the result is a checkpoint like any other."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml
from flax import nnx

from mimicmotion_jax import MimicMotionPipeline, checkpoint, sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.models import encode
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.loop import Run
from mimicmotion_jax.training.objective import predict
from mimicmotion_jax.training.outputs import best_params, export_model, sampling_options

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6


def start(config: TrainConfig, cache: Path) -> subprocess.Popen:
    """`python train.py` on one device; single steps of a run can be compared only between runs of the same kind."""
    path = Path(f"{config.output}.yaml")
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))))
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    command = [sys.executable, "train.py", "--config", str(path)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(config: TrainConfig, cache: Path) -> str:
    process = start(config, cache)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    return error


def weights(config: TrainConfig) -> dict[str, np.ndarray]:
    """Of the exported model, every array of every network."""
    pipeline = MimicMotionPipeline.from_pretrained(Path(config.output) / "model", mesh=sharding.sampling_mesh(1))
    leaves = jax.tree_util.tree_leaves_with_path((pipeline.unet, pipeline.pose_net))
    return {jax.tree_util.keystr(path): np.asarray(value) for path, value in leaves}


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not np.array_equal(a[key], b[key])]
    assert not different


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory, compiled_programs) -> TrainConfig:
    """A run without interruption."""
    config = make_config(
        tmp_path_factory.mktemp("runs") / "whole",
        *(f"steps={STEPS}", "save_every=1", "keep=9", f"sample_every={STEPS}", "num_samples=1"),
        "sampling.num_inference_steps=2",
    )
    finish(config, compiled_programs)
    return config


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
    assert video.stat().st_size > 1000


def test_exported_model_holds_the_averages(whole):
    run = Run(whole, progress=False, devices=jax.devices()[:1])
    pipeline = MimicMotionPipeline.from_pretrained(Path(whole.output) / "model", mesh=sharding.sampling_mesh(1))
    assert int(run.state.step) == STEPS
    for key, value in checkpoint.flat_params(nnx.state(pipeline.pose_net)).items():
        np.testing.assert_array_equal(value, run.state.ema[f"pose_net.{key}"])
    assert not np.array_equal(pipeline.pose_net.scale[...], run.state.params["pose_net.scale"])


def test_exported_model_knows_how_to_sample(whole):
    options = checkpoint.read_sampling(Path(whole.output) / "model")
    assert (options["width"], options["height"]) == (64, 64)  # the official rule gives another long side
    assert (options["num_inference_steps"], options["antialias"]) == (2, whole.data.antialias)
    assert "seed" not in options


def test_half_precision_export(whole, tmp_path):
    config = dataclasses.replace(whole, output=str(tmp_path / "half"), export_dtype="float16")
    run = Run(whole, progress=False, devices=jax.devices()[:1])
    export_model(config, run.model, run.template, best_params(run.state, run.frozen), run.mesh)
    networks = checkpoint.read_manifest(tmp_path / "half" / "model")["networks"]
    assert {network["dtype"] for network in networks.values()} == {"float16"}


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1024, 576, {"resolution": 576}), (576, 1024, {"resolution": 576}), (96, 128, {"width": 96, "height": 128})],
)
def test_official_sizes_are_left_to_the_picture(make_config, tmp_path, width, height, expected):
    config = make_config(tmp_path / "run", f"data.width={width}", f"data.height={height}")
    options = sampling_options(config, 32)
    assert {key: options[key] for key in ("width", "height", "resolution") if key in options} == expected


def test_forward_equals_the_pipelines(whole, make_config, tmp_path):
    """A run that starts from a checkpoint predicts what the pipeline predicts: one Euler step to sigma 0 gives D."""
    model = Path(whole.output) / "model"
    run = Run(make_config(tmp_path, f"checkpoint={model}"), progress=False, devices=jax.devices()[:1])
    pipeline = MimicMotionPipeline.from_pretrained(model, mesh=sharding.sampling_mesh(1))
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 64, 3), np.uint8)
    poses = random.integers(0, 256, (4, 64, 64, 3), np.uint8)
    noise = random.standard_normal((4, 8, 8, 4)).astype(np.float32)
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "window_overlap": 0, "output_type": "latent"}
    denoised = pipeline(image, poses, noise=noise, keep_reference_frame=True, **options).frames

    sigma = 700.0
    noisy = noise[None] * np.float32(np.sqrt(sigma**2 + 1))
    with jax.default_matmul_precision("highest"):
        v = jax.jit(predict)(
            run.template.networks(run.state.params | run.frozen),
            noisy,
            jnp.full((1,), sigma),
            encode.encode_image(pipeline.vae, image[None], np.zeros((1, 64, 64, 3), np.float32)),
            encode.embed_image(pipeline.image_encoder, image[None]),
            poses[None],
            jnp.ones(1, bool),
            jnp.array([[6.0, 127.0, 0.0]]),
        )
    expected = noisy / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * v
    np.testing.assert_allclose(denoised, expected[0], atol=1e-5 * np.abs(expected).max())


def test_killed_and_interrupted(whole, tmp_path, compiled_programs):
    """kill -9 while a checkpoint is being written or soon after, SIGTERM, kill -9 again; then to the end: same bits."""
    config = dataclasses.replace(whole, output=str(tmp_path / "run"), sample_every=None)
    checkpoints = tmp_path / "run" / "checkpoints"
    for after, number in ((1, signal.SIGKILL), (3, signal.SIGTERM), (5, signal.SIGKILL)):
        process = start(config, compiled_programs)
        while process.poll() is None and not (checkpoints / str(after)).exists():
            time.sleep(0.01)
        process.send_signal(number)
        error = process.communicate()[1]
        if number == signal.SIGTERM:
            assert process.returncode == 128 + signal.SIGTERM
            saved = max(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal())
            assert f"stopped and saved at step {saved}" in error
            assert not (tmp_path / "run" / "model").exists()
    messages = finish(config, compiled_programs)
    assert "going on from step" in messages
    assert "training on 1 x cpu (mesh data=1 fsdp=1 frames=1)\n" in messages
    assert_same_bits(weights(config), weights(whole))


def too_much(*args, **options) -> jax.Array:
    """Four pebibytes of one device: jax's own error."""
    return jnp.zeros(1 << 50).block_until_ready()


def test_memory_that_a_step_lacks_ends_the_run_in_one_sentence(make_config, tmp_path):
    run = Run(make_config(tmp_path, "save_every=1"), progress=False, devices=jax.devices()[:1])
    step, steps = run.step_function, []

    def short_of_memory(*args):
        steps.append(1)
        return step(*args) if len(steps) < 3 else too_much()

    run.step_function = short_of_memory
    with pytest.raises(
        InputError, match=r"the device's memory does not suffice; lower batch_size .*mesh\.fsdp"
    ) as caught:
        run.train()
    assert "\n" not in str(caught.value)
    run.checkpoints.close()
    assert run.checkpoints.latest() == 2  # what was being written is complete


def test_memory_that_a_start_lacks(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("mimicmotion_jax.training.loop.load_frozen", too_much)
    with pytest.raises(InputError, match="the device's memory does not suffice; lower batch_size"):
        Run(make_config(tmp_path), progress=False, devices=jax.devices()[:1])


def test_a_checkpoint_that_does_not_fit_is_not_called_damaged(make_config, tmp_path, monkeypatch):
    config = make_config(tmp_path)
    run = Run(config, progress=False, devices=jax.devices()[:1])
    run.save()
    run.checkpoints.close()
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", too_much)
    with pytest.raises(InputError, match="the device's memory does not suffice; lower batch_size"):
        Run(config, progress=False, devices=jax.devices()[:1])


def test_samples_that_fail_do_not_end_the_run(make_config, tmp_path, monkeypatch, caplog):
    """The first for want of memory, the second because a file is where their folder should be."""
    config = make_config(
        tmp_path, "steps=2", "sample_every=1", "num_samples=1", "sampling.num_inference_steps=1", "dtype=float32"
    )
    (tmp_path / "samples").write_text("mine")
    run = Run(config, progress=False, devices=jax.devices()[:1])
    whole = MimicMotionPipeline.__call__
    first = iter([too_much])
    monkeypatch.setattr(MimicMotionPipeline, "__call__", lambda *args, **options: next(first, whole)(*args, **options))
    assert run.train() is None
    run.checkpoints.close()
    told = [record.getMessage() for record in caplog.records if "the run goes on" in record.getMessage()]
    assert "samples of step 1 could not be made" in told[0]
    assert "the device's memory does not suffice; lower sampling.decode_chunk_size" in told[0]
    assert "samples of step 2 could not be made" in told[1]
    assert "File exists" in told[1]
    assert len(told) == 2
    assert (tmp_path / "samples").read_text() == "mine"
    assert (tmp_path / "model" / "manifest.json").exists()


def test_not_a_number_stops_the_run(make_config, tmp_path):
    config = make_config(tmp_path, "save_every=1")
    run = Run(config, progress=False, devices=jax.devices()[:1])
    draw = run.next_batch
    count = []

    def poisoned():
        count.append(1)
        batch = draw()
        return batch._replace(latents=batch.latents * np.float32(np.nan)) if len(count) == 3 else batch

    run.next_batch = poisoned
    with pytest.raises(InputError, match=r"not finite at step 3 .*checkpoint of step 2 is good"):
        run.train()
    state, _ = run.checkpoints.restore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), run.state)
    )
    assert all(np.isfinite(value).all() for value in state.params.values())
