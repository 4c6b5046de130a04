"""The real task in this process: it predicts as the pipeline does, goes on without samples, and exports its options."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.models import encode
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.export import sampling_options
from mimicmotion_jax.training.objective import Networks, predict
from mimicmotion_jax.training.state import init_state
from mimicmotion_jax.training.tasks.diffusion import Diffusion


@pytest.fixture
def make_task(make_config):
    """A function like `make_config` to tasks on one device."""
    return lambda *args: Diffusion(make_config(*args), progress=False, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1024, 576, {"resolution": 576}), (576, 1024, {"resolution": 576}), (96, 128, {"width": 96, "height": 128})],
)
def test_official_sizes_are_left_to_the_picture(make_config, tmp_path, width, height, expected):
    config = make_config(tmp_path / "run", f"data.width={width}", f"data.height={height}")
    options = sampling_options(config, 32)
    assert {key: options[key] for key in ("width", "height", "resolution") if key in options} == expected


def test_conditions_of_training_are_exported(make_config, tmp_path):
    conditions = {"fps": 25, "motion_bucket_id": 90, "noise_aug_strength": 0.3}
    config = make_config(tmp_path, *[f"objective.{name}={value}" for name, value in conditions.items()])
    assert conditions.items() <= sampling_options(config, 32).items()
    kept = make_config(tmp_path, "objective.fps=25", "sampling.fps=25")
    assert sampling_options(kept, 32)["fps"] == 25
    for name in conditions:
        with pytest.raises(InputError, match=rf"sampling\.{name} .* set objective\.{name}"):
            make_config(tmp_path, f"sampling.{name}=3")


def test_clips_are_laid_out_as_the_sampler_lays_out_windows(make_task, tmp_path):
    """Frame 0 is the reference with its own pose, unless that is turned off."""
    batch = next(make_task(tmp_path).loader)
    np.testing.assert_array_equal(batch["frames"][:, 0], batch["reference"])
    batch = next(make_task(tmp_path, "data.reference_slot=false").loader)
    assert not np.array_equal(batch["frames"][:, 0], batch["reference"])


@pytest.mark.slow  # `test_objective` and `test_official_loop` compare both with PyTorch
def test_forward_equals_the_pipelines(make_task, weights, tmp_path):
    """A run that starts from a checkpoint predicts what the pipeline predicts: one Euler step to sigma 0 gives D."""
    task = make_task(tmp_path)
    params = task.load() | task.fixed
    pipeline = MimicMotionPipeline.from_pretrained(weights, mesh=sharding.sampling_mesh(1))
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 64, 3), np.uint8)
    poses = random.integers(0, 256, (4, 64, 64, 3), np.uint8)
    noise = random.standard_normal((4, 16, 16, 4)).astype(np.float32)
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "window_overlap": 0, "output_type": "latent"}
    options |= {"motion_kind": "skeletons", "keep_reference_frame": True}
    denoised = pipeline(image, poses, noise=noise, **options).frames

    sigma = 700.0
    noisy = noise[None] * np.float32(np.sqrt(sigma**2 + 1))
    with jax.default_matmul_precision("highest"):
        v = jax.jit(predict)(
            Networks(**task.template.networks(params)),
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


def too_much(*args, **options) -> jax.Array:
    """Ask for four pebibytes of one device, for jax's own error."""
    return jnp.zeros(1 << 50).block_until_ready()


def test_samples_that_fail_do_not_end_the_run(make_task, tmp_path, monkeypatch, caplog):
    """The first for lack of memory, the second because a file is where their folder should be.

    They are drawn under the conditions of the training. (`test_resume.py` has a sample video of the real pipeline.)
    """
    task = make_task(tmp_path, "sample_every=1", "num_samples=1", "objective.fps=25")
    state = init_state(task.load(), task.config.optimizer, task.config.steps, task.mesh)
    (tmp_path / "samples").write_text("mine")
    calls = []

    def generate(pipeline, image, poses, **options):
        calls.append(options)
        return too_much() if len(calls) == 1 else SimpleNamespace(frames=np.zeros((len(poses) - 1, *image.shape)))

    monkeypatch.setattr(MimicMotionPipeline, "__call__", generate)
    for step in (1, 2):
        task.sample(state, step)
    assert [(options["fps"], options["noise_aug_strength"]) for options in calls] == [(25, 0.02)] * 2
    logged = [record.getMessage() for record in caplog.records if "the run goes on" in record.getMessage()]
    assert len(logged) == 2
    assert "samples of step 1" in logged[0]
    assert "memory" in logged[0]
    assert "sampling.decode_chunk_size" in logged[0]
    assert "samples of step 2" in logged[1]
    assert "File exists" in logged[1]
    assert (tmp_path / "samples").read_text() == "mine"
