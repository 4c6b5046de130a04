"""PSNR, SSIM, smoothness over time and silhouettes, against formulas worked by hand."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from mimicmotion_jax.metrics import (
    average_psnr,
    foreground,
    frame_differences,
    intersection_over_union,
    psnr,
    seam_discontinuity,
    ssim,
    yt_slice,
)
from mimicmotion_jax.runtime.errors import InputError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_of_a_known_error():
    reference = np.full((3, 20, 30, 3), 100, np.uint8)
    frames = reference.copy()
    frames[0] += 10  # everywhere
    frames[1, 0, 0, 0] = 255  # in one sample, by 155
    np.testing.assert_allclose(
        psnr(frames, reference), [10 * np.log10(65025 / 100), 10 * np.log10(65025 * 1800 / 155**2), np.inf], rtol=1e-14
    )
    np.testing.assert_array_equal(psnr(frames, reference), psnr(reference, frames))  # no wrap-around below zero


def test_psnr_inside_a_mask():
    reference, frames = noise(3, 16, 16, 3, seed=1), noise(3, 16, 16, 3, seed=2)
    mask = np.zeros((3, 16, 16), bool)
    mask[0, 2:5, 3:9] = True
    mask[1] = True
    inside = ((frames[0, 2:5, 3:9].astype(float) - reference[0, 2:5, 3:9]) ** 2).mean()
    values = psnr(frames, reference, mask)
    assert values[0] == pytest.approx(10 * np.log10(65025 / inside))
    assert values[1] == psnr(frames, reference)[1]
    assert np.isnan(values[2])
    assert average_psnr(values) == pytest.approx(values[:2].mean())


def test_average_psnr_counts_equal_frames_as_100_db():
    assert average_psnr(np.array([20.0, np.inf, 30.0])) == 50
    assert np.isnan(average_psnr(np.array([np.nan])))


def test_ssim_is_its_definition():
    """Wang et al. 2004, equation 13, over uniform windows of 49 pixels, sample covariance, no border."""
    frames, reference = noise(2, 32, 41, 3, seed=3), noise(2, 32, 41, 3, seed=4)
    reference[1] = cv2.GaussianBlur(frames[1], (5, 5), 1)
    for score, frame, truth in zip(ssim(frames, reference), frames, reference, strict=True):
        x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float) for picture in (frame, truth))
        np.testing.assert_allclose(x, frame @ [0.299, 0.587, 0.114], atol=0.51)
        mx, my = uniform_filter(x, 7), uniform_filter(y, 7)
        vx, vy, cov = ((uniform_filter(a * b, 7) - ma * mb) * 49 / 48 for a, b, ma, mb in
                       ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my)))  # fmt: skip
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        local = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        assert score == pytest.approx(local[3:-3, 3:-3].mean(), abs=1e-12)
    np.testing.assert_array_equal(ssim(frames, frames), 1)


def test_frame_differences_and_seams():
    levels = np.array([0, 5, 10, 60, 65, 115, 120])
    frames = np.broadcast_to(levels[:, None, None, None], (7, 4, 5, 3)).astype(np.uint8)
    differences = frame_differences(frames[::-1])  # downwards, where 8-bit arithmetic would wrap
    np.testing.assert_allclose(differences, np.array([5, 50, 5, 50, 5, 5]) / 255)
    assert seam_discontinuity(differences, [2, 4]) == pytest.approx(10)
    assert seam_discontinuity(differences, [1]) == pytest.approx(5 / 23)
    assert seam_discontinuity(np.array([0.0, 0.2, 0.0]), [2]) == np.inf
    assert seam_discontinuity(np.zeros(3), [2]) == 1


def test_a_yt_slice_shows_a_column_over_time():
    frames = noise(5, 6, 7, 3)
    picture = yt_slice(frames, 2)
    assert picture.shape == (6, 5, 3)
    np.testing.assert_array_equal(picture[4, 3], frames[3, 4, 2])


def test_foreground_and_its_overlap():
    background = noise(10, 12, 3, seed=5) // 2 + 60
    truth = np.zeros((2, 10, 12), bool)
    truth[0, 2:6, 3:9] = True  # 24 pixels
    moved = np.roll(truth, 2, axis=2)
    frames = np.broadcast_to(background, (2, 10, 12, 3)).copy()
    frames[truth, 1] -= 31  # one channel is enough
    frames[~truth] += 30
    np.testing.assert_array_equal(foreground(frames, background, 30), truth)
    np.testing.assert_allclose(intersection_over_union(truth, moved), [16 / 32, 1])


def test_videos_that_do_not_fit_are_refused():
    frames = noise(3, 12, 10, 3)
    with pytest.raises(InputError, match="3 frames of 10x12 but the reference is 2 frames of 10x12"):
        psnr(frames, frames[:2])
    with pytest.raises(InputError, match="the mask is 3 frames of 10x11"):
        psnr(frames, frames, np.ones((3, 11, 10), bool))
    with pytest.raises(InputError, match="at least 7x7 pixels, not 10x6"):
        ssim(frames[:, :6], frames[:, :6])
    with pytest.raises(InputError, match="at least two frames"):
        frame_differences(frames[:1])
    for seams in ([], [0], [3]):
        with pytest.raises(InputError, match="from 1 to 2"):
            seam_discontinuity(np.ones(2), seams)
    with pytest.raises(InputError, match="every frame is a seam"):
        seam_discontinuity(np.ones(2), [1, 2])
    with pytest.raises(InputError, match="no column 10"):
        yt_slice(frames, 10)
    with pytest.raises(InputError, match="background is 10x11 pixels but the video 10x12"):
        foreground(frames, frames[0, :11], 30)
    with pytest.raises(InputError, match="0 to 254 levels, not 255"):
        foreground(frames, frames[0], 255)
    with pytest.raises(InputError, match="cannot be compared"):
        intersection_over_union(np.ones((3, 4, 5), bool), np.ones((3, 4, 6), bool))
