"""Distillation: its objective on Gaussian data against NumPy, a run that goes on to the same bits, and wrong input."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import checkpoint
from mimicmotion_jax.config import load_config
from mimicmotion_jax.diffusion.schedules import make_sigmas
from mimicmotion_jax.inference.options import load_options
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.distillation import (
    DistillationConfig,
    Teaching,
    distillation_objective,
    draw_levels,
)
from mimicmotion_jax.training.objective import Encoded, Networks, ObjectiveConfig
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.trainer import train

SAMPLING = ("sampling.sampler=consistency", "sampling.schedule=ays", "sampling.guidance_scale=1")
BATCH, SHAPE = 6, (2, 3, 4, 5)


class Gaussian:
    """Network for data N(context + poses, std^2); the mean is the context's and the pose's, and 0 without both."""

    def __init__(self, std):
        self.std = std

    def conditions(self, context, time_ids, num_frames):
        return context

    def __call__(self, sample, c_noise, context, pose_features, execution):
        sigma = jnp.exp(4 * c_noise)[:, None, None, None, None]
        norm = jnp.sqrt(sigma**2 + 1)
        x, mean = sample[..., : SHAPE[-1]] * norm, context[:, None, None, None] + pose_features
        estimate = (self.std**2 * x + sigma**2 * mean) / (self.std**2 + sigma**2)
        return (x / norm**2 - estimate) * norm / sigma


class Pose:
    """PoseNet that takes one number from each frame."""

    def __call__(self, pixels):
        return pixels.mean(axis=(2, 3, 4), keepdims=True)


def networks(std):
    return Networks(Gaussian(std), Pose())


@pytest.fixture(scope="module")
def batch() -> Encoded:
    random = np.random.default_rng(0)
    return Encoded(
        index=jnp.arange(BATCH, dtype=jnp.uint32),
        latents=jnp.asarray(random.normal(size=(BATCH, *SHAPE)), jnp.float32),
        image_latents=jnp.zeros((BATCH, *SHAPE[1:])),
        context=jnp.asarray(random.normal(size=(BATCH, 1)), jnp.float32),
        poses=jnp.asarray(random.integers(0, 256, (BATCH, SHAPE[0], 8, 8, 3)), jnp.uint8),
        hand_mask=jnp.asarray(random.random((BATCH, *SHAPE[:3])) < 0.3),
    )


def loss_by_hand(batch, draws, lower, scale, stds, hand_weight, huber):
    """Song et al. 2023, algorithm 2, one sample after the other, with a guided teacher."""
    teacher, target, student = stds
    total = []
    for i in range(BATCH):
        sigma, below = float(draws.sigma[i]), float(lower[i])
        x = np.asarray(batch.latents[i], np.float64) + sigma * np.asarray(draws.noise[i], np.float64)
        pose = (np.asarray(batch.poses[i], np.float64) / 127.5 - 1).mean(axis=(1, 2, 3))[:, None, None, None]
        mean = float(batch.context[i, 0]) + pose

        def estimate(x, sigma, mean, std):
            return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)

        without, conditioned = estimate(x, sigma, 0, teacher), estimate(x, sigma, mean, teacher)
        guided = without + scale * (conditioned - without)
        reached = x + (below - sigma) * (x - guided) / sigma
        wanted = estimate(reached, below, mean, target) if below else reached
        error = (1 + sigma**2) / sigma**2 * (estimate(x, sigma, mean, student) - wanted) ** 2
        distance = error.mean(-1)
        if huber:
            distance = np.sqrt(distance + huber**2) - huber
        total.append(np.where(np.asarray(batch.hand_mask[i]), hand_weight, 1) * distance)
    return np.mean(total)


@pytest.mark.parametrize(("scale", "huber"), [(2.5, 0.03), (1.0, None)])
def test_loss_matches_numpy(batch, scale, huber):
    config = ObjectiveConfig(dropout=0, hand_weight=7)
    distillation = DistillationConfig(guidance_scale=scale, num_levels=4, huber=huber)
    draws, lower = jax.jit(lambda index: draw_levels(distillation, config, 5, index, SHAPE))(batch.index)
    sigmas = make_sigmas("ays", 4)
    assert set(np.asarray(draws.sigma)) <= set(sigmas[:-1])
    assert 0 in lower  # one sample has the last step, whose target is where the teacher arrives
    np.testing.assert_array_equal(lower, sigmas[np.searchsorted(-sigmas, -np.asarray(draws.sigma)) + 1])
    stds = (0.8, 0.6, 0.4)
    teacher, target, student = map(networks, stds)

    @jax.jit
    def run(*inputs):
        return distillation_objective(student, Teaching(teacher, target), *inputs, config, distillation)

    loss, sums = run(batch, draws, lower)
    np.testing.assert_allclose(loss, loss_by_hand(batch, draws, lower, scale, stds, 7, huber), rtol=1e-3)
    assert float(sums["hand_count"] + sums["other_count"]) == batch.hand_mask.size


def test_levels_are_drawn_evenly():
    distillation, index = DistillationConfig(num_levels=8), np.arange(4000, dtype=np.uint32)
    draws, _ = jax.jit(lambda index: draw_levels(distillation, ObjectiveConfig(), 0, index, (1, 1, 1, 1)))(index)
    levels, counts = np.unique(draws.sigma, return_counts=True)
    np.testing.assert_allclose(levels[::-1], make_sigmas("ays", 8)[:-1])
    assert 400 < counts.min() <= counts.max() < 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["distillation.num_levels=0", *SAMPLING], r"distillation\.num_levels.* 2"),
        (["distillation.guidance_scale=2", *SAMPLING, "sampling.num_inference_steps=0"], r"num_inference_steps.* 1"),
        (["distillation.guidance_scale=2"], "set sampling.guidance_scale=1"),
        (["distillation.huber=0", *SAMPLING], r"distillation\.huber"),
    ],
)
def test_wrong_configuration(options, message):
    with pytest.raises(InputError, match=message) as error:
        load_config(TrainConfig, overrides=["checkpoint=somewhere", *options])
    assert "\n" not in str(error.value)


def test_a_teacher_of_another_architecture(make_config, weights, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    model = json.loads((other / "config.json").read_text())
    model["pose_net"]["channels"][1] *= 2
    (other / "config.json").write_text(json.dumps(model))
    config = make_config(tmp_path / "run", f"distillation.teacher={other}", *SAMPLING)
    with pytest.raises(InputError, match=r"other sizes than checkpoint=.*; teacher and student must have the same"):
        Diffusion(config, progress=False, devices=jax.devices()[:1])


def test_nothing_to_distil(make_config, tmp_path):
    config = make_config(tmp_path / "run", "checkpoint=null", "model=tiny", "distillation.guidance_scale=2", *SAMPLING)
    with pytest.raises(InputError, match="distillation needs a trained model to start from: set checkpoint=DIR"):
        Diffusion(config, progress=False, devices=jax.devices()[:1])


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_and_its_student_knows_how_to_sample(make_config, tmp_path):
    options = [
        *("distillation.num_levels=8", *SAMPLING, "sampling.num_inference_steps=4", "batch_size=2"),
        *("objective.dropout=0", "trainable=['unet.up_blocks']", "save_every=2", "keep=9"),
    ]

    def task(name, steps):
        config = make_config(tmp_path / name, *options, f"steps={steps}")
        return Diffusion(config, progress=False, devices=jax.devices()[:1])

    whole = task("whole", 4)
    assert train(whole) is None
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "4")
    assert train(task("parts", 4)) is None
    ours, theirs = (
        checkpoint.flat_params(nnx.state(checkpoint.load_network(tmp_path / name / "model", "unet", whole.model)))
        for name in ("whole", "parts")
    )
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)
    sampling = load_options(tmp_path / "whole" / "model")
    assert (sampling.sampler, sampling.schedule, sampling.num_steps, sampling.guided) == (
        "consistency",
        "ays",
        4,
        False,
    )
