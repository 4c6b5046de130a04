"""Simulated detections: each kind of error against the rate, size or rule that the configuration states."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from mimicmotion_jax.config import load_config
from mimicmotion_jax.pose.keypoints import ARRAYS, GROUPS, Body, Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.detector import LOWEST, DetectorConfig, simulate_detection, torso_length

WIDTH, HEIGHT, FPS = 200, 320, 15.0
SIZE = np.array([WIDTH, HEIGHT])
EXACT = {"jitter": 0, "blur": 0, "dropped": 0, "hallucinated": 0, "duplicated": 0, "swapped": 0, "duplicated_hidden": 0}
BUT_NECK = [joint for joint in Body if joint != Body.NECK]


def figure(num_frames: int, scale: float = 1.0, score: float = 1.0, hands_per_second: float = 0.0) -> Keypoints:
    """Make a person in the middle of the picture with a torso of 80 `scale` pixels; hands may move sideways."""
    random = np.random.default_rng(0)
    body = random.uniform(-50, 50, (18, 2))
    body[Body.NECK], body[Body.R_SHOULDER], body[Body.L_SHOULDER] = (0, -40), (-20, -40), (20, -40)
    body[Body.R_HIP], body[Body.L_HIP] = (-15, 40), (15, 40)
    hands = random.uniform(-8, 8, (2, 21, 2)) + np.array([[40, 0], [-40, 0]])[:, None]
    shapes = {"body": body, "hands": hands, "faces": random.uniform(-12, 12, (68, 2)) - (0, 60)}
    arrays = {}
    for name, shape in shapes.items():
        pixels = np.broadcast_to(SIZE / 2 + scale * shape, (num_frames, *shape.shape)).copy()
        if name == "hands":
            pixels[..., 0] += 80 * hands_per_second / FPS * np.arange(num_frames).reshape(-1, 1, 1)
        arrays[name] = pixels[:, None] / SIZE
        arrays[f"{name}_score"] = np.full((num_frames, 1, *shape.shape[:-1]), score)
    return Keypoints(**arrays, width=WIDTH, height=HEIGHT, fps=FPS)


def but(**changes: float) -> DetectorConfig:
    """Return a detector that makes only these errors."""
    return DetectorConfig(**EXACT | changes)


def errors(found: Keypoints, exact: Keypoints, name: str) -> np.ndarray:
    """Return errors in pixels, [F, ..., 2], without the neck."""
    difference = ((getattr(found, name) - getattr(exact, name)) * SIZE)[:, 0]
    return difference[:, BUT_NECK] if name == "body" else difference


def assert_share(events: np.ndarray, share: float, memory: float) -> None:
    """Check a share of events [F, n] to 4 standard deviations; in time they correlate by e^(-distance / memory)."""
    kept = math.exp(-1 / memory)
    deviation = math.sqrt(share * (1 - share) / events.size * (1 + kept) / (1 - kept))
    assert abs(events.mean() - share) < 4 * deviation
    assert deviation < share / 4  # otherwise the check says nothing


def test_without_noise_the_input_comes_back():
    exact = figure(30)
    hidden = np.ones_like(exact.body_score)
    hidden[:, :, [Body.L_KNEE, Body.R_EAR]] = 0
    exact = dataclasses.replace(exact, body_score=hidden)
    found = simulate_detection(exact, 3, but())
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(exact, name))


def test_the_same_seed_gives_the_same_detection():
    exact = figure(20)
    first, again, other = (simulate_detection(exact, seed) for seed in (5, 5, 6))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.hands != other.hands).all()
    assert (first.hands_score != other.hands_score).mean() > 0.9


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_jitter_is_a_fraction_of_the_torso(scale):
    """E[e^(2 s g)] = e^(2 s^2) for a normal g, so this is the standard deviation of a mixture."""
    exact = figure(4000, scale)
    assert torso_length(exact) == pytest.approx(80 * scale, rel=1e-4)
    found = simulate_detection(exact, 0, but(jitter=0.5, spread=0.4))
    for name, typical in (("body", 0.02), ("hands", 0.015), ("faces", 0.006)):
        expected = 0.5 * typical * 80 * scale * math.exp(0.4**2)
        error = errors(found, exact, name)
        assert error.std() == pytest.approx(expected, rel=0.1)
        assert abs(error.mean()) < 0.1 * expected
        # In time: the correlation of neighbours, e^(-1 / (0.1 s * 15 / s)); g hardly changes between them.
        neighbours = np.corrcoef(error[1:].ravel(), error[:-1].ravel())[0, 1]
        assert neighbours == pytest.approx(math.exp(-1 / 1.5), abs=0.05)


def test_fast_hands_blur():
    """0.01 s at half a torso length per second is an error of 0.005 torso lengths, and none elsewhere."""
    exact = figure(20, hands_per_second=0.5)
    found = [simulate_detection(exact, seed, but(blur=0.01)) for seed in range(200)]
    error = np.concatenate([errors(each, exact, "hands") for each in found])
    assert error.std() == pytest.approx(0.01 * 0.5 * 80, rel=0.05)
    assert all(not errors(each, exact, "body").any() for each in found)
    # u = 0.005 / 0.015 of the typical error, judged exactly.
    surely = simulate_detection(exact, 0, but(blur=0.01, misjudged=0))
    np.testing.assert_allclose(surely.hands_score, 0.2 + 0.8 / (1 + (1 / 9) ** 2), rtol=1e-4)


@pytest.mark.parametrize(("spread", "misjudged"), [(0.5, 0.0), (0.0, 0.3), (0.5, 0.3)])
def test_confidence_is_of_log_normal_uncertainty(spread, misjudged):
    """Solve score = 0.2 + 0.8 / (1 + (u / 3)^2) for u."""
    found = simulate_detection(figure(4000), 9, but(jitter=1, spread=spread, misjudged=misjudged))
    uncertainty = np.log(3 * np.sqrt(0.8 / (found.faces_score.astype(np.float64) - 0.2) - 1))
    assert uncertainty.std() == pytest.approx(math.hypot(spread, misjudged), rel=0.1)
    assert abs(uncertainty.mean()) < 0.15 * uncertainty.std()


def test_confidence_correlates_with_the_error():
    found = [(simulate_detection(exact, seed), exact) for seed in range(10) for exact in [figure(200)]]
    for name in GROUPS:
        size = np.concatenate([np.linalg.norm(errors(*pair, name), axis=-1).ravel() for pair in found])
        columns = BUT_NECK if name == "body" else ...
        score = np.concatenate([getattr(each, f"{name}_score")[:, 0][:, columns].ravel() for each, _ in found])
        size, score = size[score > 0], score[score > 0]
        assert -0.8 < spearmanr(size, score).statistic < -0.5, name
        assert LOWEST <= score.min() < 0.45
        assert np.median(score) > 0.8
        assert 0.97 < score.max() <= 1


def test_units_are_dropped_at_the_rate_given():
    exact = figure(6000)
    found = simulate_detection(exact, 2, but(dropped=0.1))
    body, hands = found.body_score[:, 0][:, BUT_NECK] == 0, found.hands_score[:, 0] == 0
    assert_share(body, 0.1, 0.5 * FPS)
    assert_share(hands[..., 0], 0.1, 0.5 * FPS)
    assert (hands.any(-1) == hands.all(-1)).all()
    # A stretch ends, in each frame, if the state is drawn anew and is the other one.
    ends = (body[:-1] & ~body[1:]).sum() / body[:-1].sum()
    assert ends == pytest.approx((1 - math.exp(-1 / 7.5)) * 0.9, rel=0.1)


def test_the_neck_follows_from_the_shoulders():
    exact = figure(3000)
    found = simulate_detection(exact, 4, but(jitter=1, dropped=0.1))
    shoulders = [Body.R_SHOULDER, Body.L_SHOULDER]
    np.testing.assert_allclose(found.body[:, 0, Body.NECK], found.body[:, 0, shoulders].mean(1), atol=1e-6)
    rule = (found.body_score[:, 0, shoulders] > 0.3).all(-1)
    np.testing.assert_array_equal(found.body_score[:, 0, Body.NECK], rule)
    assert 0.7 < rule.mean() < 0.9


def test_hidden_joints_are_found_in_wrong_places_with_little_confidence():
    exact = figure(3000, score=0)
    found = simulate_detection(exact, 1, but(jitter=1, spread=0, misjudged=0, hallucinated=0.6))
    seen = found.body_score[:, 0][:, BUT_NECK] > 0
    assert_share(seen, 0.6, 1.0 * FPS)
    np.testing.assert_allclose(found.body_score[:, 0][:, BUT_NECK][seen], 0.2 + 0.8 / (1 + 64 / 9), rtol=1e-4)
    assert errors(found, exact, "body").std() == pytest.approx(8 * 0.02 * 80, rel=0.05)


def test_a_few_hidden_fingers_are_found():
    """7 of 21 points: 8^(1/3) = 2 times the typical error."""
    exact = figure(10)
    scores = exact.hands_score.copy()
    scores[..., 14:] = 0
    exact = dataclasses.replace(exact, hands_score=scores)
    found = simulate_detection(exact, 0, but(jitter=1, spread=0, misjudged=0))
    np.testing.assert_allclose(found.hands_score[..., 14:], 0.2 + 0.8 / (1 + 4 / 9), rtol=1e-5)
    np.testing.assert_allclose(found.hands_score[..., :14], 0.2 + 0.8 / (1 + 1 / 9), rtol=1e-5)
    scores[..., 10:] = 0  # 11 points are too many
    exact = dataclasses.replace(exact, hands_score=scores)
    np.testing.assert_array_equal(simulate_detection(exact, 0, but()).hands_score, scores)


def test_hands_are_mistaken_for_each_other():
    exact = figure(8000)

    def mistaken(keypoints: Keypoints, config: DetectorConfig) -> np.ndarray:
        found = simulate_detection(keypoints, 8, config)
        own, other = (
            (found.hands[:, 0] == keypoints.hands[:, 0][:, order]).all((-1, -2)) for order in ([0, 1], [1, 0])
        )
        assert (own ^ other).all()
        return other  # [F, 2]

    duplicated = mistaken(exact, but(duplicated=0.05))
    assert_share(duplicated, 0.05, 0.5 * FPS)
    assert duplicated.any(-1).sum() > 5 * duplicated.all(-1).sum()
    swapped = mistaken(exact, but(swapped=0.05))
    assert_share(swapped[:, :1], 0.05, 0.5 * FPS)
    assert (swapped[:, 0] == swapped[:, 1]).all()
    scores = exact.hands_score.copy()
    scores[:, :, 1] = 0
    occluded = dataclasses.replace(exact, hands_score=scores)
    left, right = mistaken(occluded, but(duplicated_hidden=0.3)).T
    assert not left.any()
    assert_share(right[:, None], 0.3, 0.5 * FPS)


def test_a_mistaken_hand_has_less_confidence():
    """Four times the typical error."""
    exact = figure(10)
    found = simulate_detection(exact, 0, but(jitter=1, spread=0, misjudged=0, swapped=1))
    np.testing.assert_allclose(found.hands_score, 0.2 + 0.8 / (1 + 16 / 9), rtol=1e-5)
    np.testing.assert_allclose(found.faces_score, 0.2 + 0.8 / (1 + 1 / 9), rtol=1e-5)


def test_outside_the_picture_there_is_nothing():
    exact = figure(300)
    moved = dataclasses.replace(exact, body=exact.body + np.float32([0.5, 0]))
    found = simulate_detection(moved, 0, but(jitter=3, hallucinated=1))
    outside = ((found.body < 0) | (found.body > 1)).any(-1)
    assert 0.1 < outside.mean() < 0.9
    assert not found.body_score[outside].any()
    # A point outside the picture is never reported inside it.
    edge = dataclasses.replace(exact, body=exact.body + np.float32([2, 0]), body_score=np.zeros_like(exact.body_score))
    assert not simulate_detection(edge, 0, but(jitter=100, hallucinated=1)).body_score.any()


def test_a_single_frame_works():
    found = simulate_detection(figure(1), 0)
    assert found.num_frames == 1
    assert (found.faces_score > 0).all()


def test_bad_input():
    exact = figure(2)
    two = dataclasses.replace(exact, **{name: np.repeat(getattr(exact, name), 2, axis=1) for name in ARRAYS})
    with pytest.raises(InputError, match="one person, not for 2"):
        simulate_detection(two, 0)
    with pytest.raises(InputError, match="0 or more, not -1"):
        simulate_detection(exact, -1)
    with pytest.raises(InputError, match="dropped"):
        load_config(DetectorConfig, overrides=["dropped=1.5"])
