"""Guidance and pose over the steps and frames: each against runs that are put together by hand."""

import numpy as np
import pytest
from tiny import SIDE


@pytest.fixture(scope="module")
def run(tiny_pipeline):
    """A function from options to latents; with `after_first`, the latents after step one are replaced by these."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    poses = random.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)

    def generate(after_first=None, in_one_call=False, **options):
        found = []

        def callback(pipe, step, timestep, tensors):
            found.append(np.asarray(tensors["latents"]))
            return {"latents": after_first} if step == 0 and after_first is not None else None

        options = {"num_inference_steps": 2, "motion_kind": "skeletons", "progress": False} | options
        on_step_end = None if in_one_call else callback
        video = tiny_pipeline(
            image, poses, output_type="latent", keep_reference_frame=True, callback_on_step_end=on_step_end, **options
        )
        return found[0] if found else None, video.frames

    return generate


def test_guidance_in_an_interval_of_noise_levels(run):
    """The first of two steps is above it."""
    first, _ = run(guidance_scale=1)
    _, expected = run(guidance_scale=3, after_first=first)
    found_first, found = run(guidance_scale=3, guidance_interval=(0, 100))
    np.testing.assert_array_equal(found_first, first)
    np.testing.assert_array_equal(found, expected)


def test_guidance_over_the_frames(run):
    """After one step latents are linear in the scale."""
    (low, _), (high, _), (found, _) = (
        run(**scales)
        for scales in (
            {"guidance_scale": 1, "min_guidance_scale": 1, "max_guidance_scale": 1},
            {"guidance_scale": 3},
            {"min_guidance_scale": 1, "max_guidance_scale": 3},
        )
    )
    part = np.linspace(0, 1, 8)[:, None, None, None]
    expected = low[0] + part * (high[0] - low[0])
    np.testing.assert_allclose(found[0], expected, atol=1e-5 * np.abs(expected).max())


def test_the_pose_in_a_part_of_the_steps(run):
    first, _ = run(pose_strength=0)
    _, expected = run(after_first=first)
    found_first, found = run(pose_start=0.5)
    np.testing.assert_array_equal(found_first, first)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(run()[0] - first).max() > 1e-3 * np.abs(first).max()


def test_neutral_values_change_nothing(run):
    neutral = {"pose_strength": 1, "pose_start": 0, "pose_end": 1, "image_strength": 1, "sampler": "euler"}
    neutral |= {"cache_interval": 1, "cache_depth": 2}
    for one, other in zip(run(), run(**neutral, guidance_interval=(0, 1e4), schedule="karras"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_strength_of_the_image(run):
    assert np.abs(run(image_strength=0)[1] - run()[1]).max() > 0


@pytest.mark.slow
def test_a_solver_that_remembers_goes_from_call_to_call(run, tiny_pipeline):
    """A callback takes steps one by one; without it they are one program."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    poses = random.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    options = {"sampler": "dpmpp_2m", "num_inference_steps": 4, "motion_kind": "skeletons", "progress": False}
    _, expected = run(**options)
    whole = tiny_pipeline(image, poses, output_type="latent", keep_reference_frame=True, **options).frames
    np.testing.assert_allclose(whole, expected, atol=1e-5 * np.abs(expected).max())


def test_noise_of_consistency_sampling_depends_on_seed_and_step_alone(run):
    student = {"sampler": "consistency", "guidance_scale": 1, "num_inference_steps": 3}
    first, expected = run(**student)
    _, found = run(**student, in_one_call=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    _, other = run(**student, after_first=first, seed=1)  # the same after the first step, other noise after the second
    assert np.abs(other - expected).max() > 1e-3
