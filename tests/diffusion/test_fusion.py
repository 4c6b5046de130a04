"""Window plans: sums of weights, Algorithm 1 against its pseudo-code, the official plan against its description."""

import numpy as np
import pytest

from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.runtime.errors import InputError

MODES = ("official", "progressive", "uniform", "none")


def fuse(plan, predictions):
    """Fuse one prediction per window and frame (scalars here) as a denoising step does."""
    fused = np.zeros(plan.indices.max() + 1)
    np.add.at(fused, plan.indices, plan.weights.astype(float) * predictions)
    return fused


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reference_slot", [True, False])
@pytest.mark.parametrize(("window", "overlap"), [(6, 2), (16, 6), (16, 0), (16, 12), (5, 1), (72, 6)])
def test_every_frame_is_covered_with_weights_that_sum_to_one(mode, reference_slot, window, overlap):
    for num_frames in (window, window + 1, 2 * window - overlap, 3 * window + 2, 5 * window - 1):
        plan = make_plan(num_frames, window, overlap, mode, reference_slot)
        totals = np.zeros(num_frames)
        np.add.at(totals, plan.indices, plan.weights)
        np.testing.assert_allclose(totals, 1, rtol=1e-6)
        assert plan.indices.shape[1] == window
        assert (plan.weights >= 0).all()
        assert all(len(set(row)) == window for row in plan.indices.tolist())
        if reference_slot or mode == "official":
            assert (plan.indices[:, 0] == 0).all()


def algorithm_1(z, num_overlap):
    """Apply lines 14 to 22 of the paper's Algorithm 1 to scalars z[i, j], all updates at once.

    i counts segments from 1 and j frames from 1, as the paper does.
    """
    segments, n = z.shape
    c, scale = num_overlap, 1 / (num_overlap + 1)
    old, new = z, z.copy()
    for i in range(1, segments + 1):
        for j in range(1, n + 1):
            if i > 1 and j <= c:
                new[i - 1, j - 1] = j * scale * old[i - 1, j - 1] + (1 - j * scale) * old[i - 2, n - c + j - 1]
            elif j > n - c and i < segments:
                new[i - 1, j - 1] = (n + 1 - j) * scale * old[i - 1, j - 1] + (c - n + j) * scale * old[
                    i, c - n + j - 1
                ]
    return new


@pytest.mark.parametrize("segments", [1, 2, 3, 7])
@pytest.mark.parametrize(("n", "c"), [(6, 2), (16, 6), (16, 8), (9, 1), (16, 0)])
def test_progressive_is_algorithm_1(segments, n, c):
    num_frames = segments * n - (segments - 1) * c
    plan = make_plan(num_frames, n, c, "progressive", reference_slot=False)
    assert plan.indices.shape == (segments, n)
    predictions = np.random.default_rng(segments + n + c).normal(size=(segments, n))
    fused = fuse(plan, predictions)
    # Both of the paper's copies of a shared frame hold the value that the plan gives that frame.
    np.testing.assert_allclose(algorithm_1(predictions, c), fused[plan.indices], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("segments", [2, 4])
def test_algorithm_1_over_the_frames_behind_the_reference_slot(segments):
    n, c = 8, 3
    plan = make_plan(1 + segments * n - (segments - 1) * c, n + 1, c, "progressive", reference_slot=True)
    predictions = np.random.default_rng(segments).normal(size=(segments, n + 1))
    fused = fuse(plan, predictions)
    np.testing.assert_allclose(algorithm_1(predictions[:, 1:], c), fused[plan.indices[:, 1:]], rtol=1e-5, atol=1e-6)
    assert fused[0] == pytest.approx(predictions[:, 0].mean(), rel=1e-5)


def test_many_steps_on_copies_equal_many_steps_on_one_latent():
    """Algorithm 1 keeps a latent per segment; ours keeps one per frame. With a linear model they stay the same."""
    n, c, segments = 7, 3, 3
    plan = make_plan(segments * n - (segments - 1) * c, n, c, "progressive", reference_slot=False)
    shared = np.random.default_rng(0).normal(size=plan.indices.max() + 1)
    copies = shared[plan.indices]
    gain = np.random.default_rng(1).normal(size=(5, segments, n))  # a different "model" per step and window
    for step in range(5):
        copies = algorithm_1(copies * gain[step], c)
        shared = fuse(plan, shared[plan.indices] * gain[step])
    np.testing.assert_allclose(copies, shared[plan.indices], rtol=1e-4, atol=1e-5)


def test_official_windows_and_weights():
    """T = 6, C = 2: windows at i = 0, 4 and one more at the end; weights by hand from u = (k + 0.5) 2 / T."""
    plan = make_plan(11, 6, 2, "official")
    assert plan.indices.tolist() == [[0, 1, 2, 3, 4, 5], [0, 5, 6, 7, 8, 9], [0, 6, 7, 8, 9, 10]]
    triangle = np.array([1, 3, 5, 5, 3, 1]) / 6
    np.testing.assert_allclose(plan.weights[0], [1 / 3, 1, 1, 1, 1, triangle[5] / (triangle[5] + triangle[1])])
    np.testing.assert_allclose(plan.weights[1, 2], triangle[2] / (triangle[2] + triangle[1]))


def test_a_last_window_that_overlaps_more_ramps_over_all_of_it():
    plan = make_plan(9, 6, 2, "progressive", reference_slot=False)  # windows at 0 and 3, overlap 3
    np.testing.assert_allclose(plan.weights[1, :4], [1 / 4, 2 / 4, 3 / 4, 1])
    np.testing.assert_allclose(plan.weights[0, 3:], [3 / 4, 2 / 4, 1 / 4])


def test_no_fusion_gives_each_frame_one_owner():
    plan = make_plan(10, 6, 3, "none", reference_slot=False)
    assert plan.indices[1].tolist() == [4, 5, 6, 7, 8, 9]
    assert plan.weights.tolist() == [[1] * 6, [0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((20, 6, 6, "progressive"), "window_overlap must lie between 0 and 4"),
        ((20, 6, 5, "progressive"), "window_overlap"),
        ((20, 6, 6, "official"), "between 0 and 5"),
        ((20, 6, -1, "uniform"), "window_overlap"),
        ((5, 6, 2, "uniform"), "shorter than the window"),
        ((20, 1, 0, "official"), "window_size must be at least 2"),
    ],
)
def test_impossible_plans_are_explained(arguments, message):
    with pytest.raises(InputError, match=message):
        make_plan(*arguments)
