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
import pytest
import yaml

from mimicmotion_jax import MimicMotionPipeline, checkpoint, sharding
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.loop import Run
from mimicmotion_jax.training.objective import predict

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6


def run_to_end(config: TrainConfig) -> dict[str, np.ndarray]:
    run = Run(config, progress=False, devices=jax.devices()[:1])
    assert run.train() is None
    run.checkpoints.close()
    return {key: np.asarray(value) for key, value in run.state.params.items()}


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
def whole(make_config, tmp_path_factory):
    """A run without interruption, and its parameters."""
    config = make_config(
        tmp_path_factory.mktemp("whole"),
        *(f"steps={STEPS}", "save_every=2", "keep=9", "sample_every=6", "num_samples=1"),
        "sampling.num_inference_steps=2",
    )
    return config, run_to_end(config)


def test_metrics_are_written_for_every_step(whole):
    config, _ = whole
    lines = [json.loads(line) for line in (Path(config.output) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {"loss", "loss_hands", "loss_elsewhere", "grad_norm", "learning_rate", "samples_per_second"} <= lines[
        1
    ].keys()
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert list((Path(config.output) / "tensorboard").iterdir())


def test_sample_video(whole):
    config, _ = whole
    (video,) = (Path(config.output) / "samples").iterdir()
    assert video.name == f"step_{STEPS:07d}_0.mp4"
    assert video.stat().st_size > 1000


def test_exported_model_holds_the_averages(whole):
    config, params = whole
    run = Run(config, progress=False, devices=jax.devices()[:1])
    exported = checkpoint.flat_params(
        checkpoint.load_params(Path(config.output) / "model", "pose_net", _abstract("pose_net", run), progress=False)
    )
    for key, value in exported.items():
        np.testing.assert_array_equal(value, run.state.ema[f"pose_net.{key}"])
    assert not np.array_equal(exported["scale"], params["pose_net.scale"])


def _abstract(name, run):
    from flax import nnx

    from mimicmotion_jax.models.build import abstract_network

    return nnx.state(abstract_network(name, run.model))


def test_forward_equals_the_pipelines(whole, make_config, tmp_path):
    """A run that starts from a checkpoint predicts what the pipeline predicts: one Euler step to sigma 0 gives D."""
    model = Path(whole[0].output) / "model"
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
    from mimicmotion_jax import stages

    with jax.default_matmul_precision("highest"):
        v = jax.jit(predict)(
            run.template.networks(run.state.params | run.frozen),
            noisy,
            jnp.full((1,), sigma),
            stages.encode_image(pipeline.vae, image[None], np.zeros((1, 64, 64, 3), np.float32)),
            stages.embed_image(pipeline.image_encoder, image[None]),
            poses[None],
            jnp.ones(1, bool),
            jnp.array([[6.0, 127.0, 0.0]]),
        )
    expected = noisy / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * v
    np.testing.assert_allclose(denoised, expected[0], atol=1e-5 * np.abs(expected).max())


def test_sigterm_saves_and_resume_gives_the_same_bits(whole, make_config, tmp_path):
    config = dataclasses.replace(whole[0], output=str(tmp_path), sample_every=None)
    run = Run(config, progress=False, devices=jax.devices()[:1])
    encode, steps = run.next_batch, []

    def interrupt_at_third():
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return encode()

    run.next_batch = interrupt_at_third
    assert run.train() == signal.SIGTERM
    assert run.checkpoints.latest() == 3
    assert not (tmp_path / "model").exists()
    run.checkpoints.close()
    assert_same_bits(run_to_end(config), whole[1])


def write_yaml(config: TrainConfig, path: Path) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))))
    return path


def test_kill_at_any_moment(whole, tmp_path, compiled_programs):
    """kill -9, again and again, at moments that have nothing to do with the run's; then to the end."""
    config = dataclasses.replace(whole[0], output=str(tmp_path / "run"), sample_every=None, save_every=1, steps=STEPS)
    command = [sys.executable, "train.py", "--config", str(write_yaml(config, tmp_path / "config.yaml"))]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled_programs),
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    checkpoints = tmp_path / "run" / "checkpoints"
    for after in (1, 3, 5):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        # Kill while the checkpoint after this one is being written, or soon after it was.
        while process.poll() is None and not (checkpoints / str(after)).exists():
            time.sleep(0.01)
        process.kill()
        process.wait()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    assert_same_bits(weights(config), weights(whole[0]))


def test_not_a_number_stops_the_run(make_config, tmp_path):
    config = make_config(tmp_path, "save_every=1", "optimizer.learning_rate=1", "optimizer.warmup_steps=0", "steps=9")
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
