"""Alignment: the official regression, the limb mapping on skeletons worked by hand, and inputs that show too little."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Body, Keypoints
from mimicmotion_jax.pose.smooth import one_euro
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference

SHARED = Path(__file__).parents[3] / "shared"

# Two people's limbs in picture heights. The ratios differ limb by limb and stay within the limits about their median.
_LIMBS = ("neck", "face", "shoulders", "upper_arm", "lower_arm", "hand", "torso", "upper_leg", "lower_leg")
DRIVER = dict(zip(_LIMBS, (0.08, 0.1, 0.1, 0.15, 0.13, 0.08, 0.28, 0.22, 0.2), strict=True))
REFERENCE = dict(zip(_LIMBS, (0.1, 0.16, 0.09, 0.16, 0.1, 0.06, 0.25, 0.15, 0.18), strict=True))
EXPECTED = {name.replace("_", " "): REFERENCE[name] / DRIVER[name] for name in DRIVER}


def skeleton(lengths, angles, neck, width, height, fps=30.0) -> Keypoints:
    """A person in the plane with given limb lengths (picture heights), one direction per limb and frame, and neck."""
    frames = len(angles)
    neck = np.broadcast_to(np.asarray(neck, float), (frames, 2))

    def way(index, length):
        return length * np.stack([np.sin(angles[:, index]), np.cos(angles[:, index])], axis=-1)

    body, hands, faces = np.zeros((frames, 18, 2)), np.zeros((frames, 2, 21, 2)), np.zeros((frames, 68, 2))
    body[:, Body.NECK] = neck
    body[:, Body.NOSE] = neck - way(0, lengths["neck"])
    ear = way(1, lengths["face"] / 2)
    for joint, part in ((Body.R_EAR, -1), (Body.R_EYE, -0.5), (Body.L_EYE, 0.5), (Body.L_EAR, 1)):
        body[:, joint] = body[:, Body.NOSE] + part * ear
    faces[:] = body[:, None, Body.NOSE] + np.linspace(-1, 1, 68)[:, None] * ear[:, None]
    for side, shoulder, hip, first in ((1, Body.R_SHOULDER, Body.R_HIP, 2), (0, Body.L_SHOULDER, Body.L_HIP, 8)):
        body[:, shoulder] = neck + way(first, lengths["shoulders"])
        body[:, shoulder + 1] = body[:, shoulder] + way(first + 1, lengths["upper_arm"])
        body[:, shoulder + 2] = body[:, shoulder + 1] + way(first + 2, lengths["lower_arm"])
        palm = way(first + 3, lengths["hand"])
        hands[:, side] = body[:, shoulder + 2, None] + np.linspace(0, 1, 21)[:, None] * palm[:, None]
        body[:, hip] = neck + way(first + 4, lengths["torso"])
        body[:, hip + 1] = body[:, hip] + way(first + 5, lengths["upper_leg"])
        body[:, hip + 2] = body[:, hip + 1] + way(first + 5, lengths["lower_leg"])
    parts = {"body": body, "hands": hands, "faces": faces}
    arrays = {name: (part * (height / width, 1))[:, None] for name, part in parts.items()}
    scores = {f"{name}_score": np.ones(array.shape[:-1]) for name, array in arrays.items()}
    return Keypoints(**arrays, **scores, width=width, height=height, fps=fps)


def poses(num_frames, seed=0):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (num_frames, 14))


def bones(k: Keypoints, frame=slice(None)) -> dict[str, np.ndarray]:
    """Vectors along the limbs in picture heights, worked out from the keypoints."""
    body = k.body[frame, 0].astype(float) * (k.width / k.height, 1)
    hands, faces = (part[frame, 0] * (k.width / k.height, 1) for part in (k.hands, k.faces))
    pairs = {
        "neck": (Body.NECK, Body.NOSE),
        "face": (Body.R_EAR, Body.L_EAR),
        "shoulders": (Body.NECK, Body.L_SHOULDER),
        "upper arm": (Body.R_SHOULDER, Body.R_ELBOW),
        "lower arm": (Body.L_ELBOW, Body.L_WRIST),
        "torso": (Body.NECK, Body.R_HIP),
        "upper leg": (Body.L_HIP, Body.L_KNEE),
        "lower leg": (Body.R_KNEE, Body.R_ANKLE),
    }
    vectors = {name: body[:, b] - body[:, a] for name, (a, b) in pairs.items()}
    return vectors | {"hand": hands[:, 1, 20] - hands[:, 1, 0], "face points": faces[:, 67] - faces[:, 0]}


def with_scores(k: Keypoints, joints, score, frame=slice(None)) -> Keypoints:
    scores = k.body_score.copy()
    scores[frame, :, joints] = score
    return dataclasses.replace(k, body_score=scores)


def only(k: Keypoints, joints, hands=False, faces=False) -> Keypoints:
    """Everything else missing: score 0 and, as in OpenPose's files, at the origin."""
    keep = {"body_score": np.isin(np.arange(18), joints), "hands_score": hands, "faces_score": faces}
    scores = {name: np.where(shown, getattr(k, name), 0) for name, shown in keep.items()}
    points = {n: np.where(scores[f"{n}_score"][..., None] > 0, getattr(k, n), 0) for n in ("body", "hands", "faces")}
    return dataclasses.replace(k, **points, **scores)


def assert_all_finite(k: Keypoints) -> None:
    assert all(np.isfinite(getattr(k, name)).all() for name in ARRAYS)


def affine_cases():
    """(reference, driving, scale, shift): worked by hand, and recorded from the official release."""
    # A driver that is the reference under y' = 0.5 y + 0.2 and, in a picture twice as wide, half the scale in x.
    reference = skeleton(REFERENCE, poses(1), (0.3, 0.4), 600, 800)
    scale, shift = np.array([1.0, 0.5]), np.array([-0.1, 0.2])
    moved = {name: getattr(reference, name) * scale + shift for name in ("body", "hands", "faces")}
    driving = dataclasses.replace(reference, **moved, width=600, height=1600)
    yield reference, driving, 1 / scale, -shift / scale
    if not SHARED.exists():
        yield pytest.param(None, id="recorded", marks=pytest.mark.skip("no recorded outputs in ../shared/golden"))
    else:
        golden = np.load(SHARED / "golden/official/pose.npz")
        for case in range(2):
            height, width, driving_height, driving_width = golden[f"align{case}_sizes"]
            driver = golden[f"align{case}_driving_body"]
            yield (
                bare(golden[f"align{case}_ref_body"][None], golden[f"align{case}_ref_score"][None], width, height),
                bare(driver, np.ones(driver.shape[:2]), driving_width, driving_height),
                golden[f"align{case}_scale"],
                golden[f"align{case}_offset"],
            )


def bare(body, score, width, height) -> Keypoints:
    empty = skeleton(DRIVER, poses(len(body)), (0, 0), int(width), int(height))
    empty = only(empty, [])
    return dataclasses.replace(empty, body=body[:, None], body_score=score[:, None])


@pytest.mark.parametrize("case", list(affine_cases()))
def test_affine_is_the_official_regression(case):
    reference, driving, scale, shift = case
    aligned, report = align(driving, reference, "affine")
    np.testing.assert_allclose([report.ratios["x"], report.ratios["y"]], scale, rtol=2e-6)
    np.testing.assert_allclose(report.shift, shift, atol=2e-6)
    for name in ("body", "hands", "faces"):
        np.testing.assert_allclose(getattr(aligned, name), getattr(driving, name) * scale + shift, atol=5e-6)
    assert (aligned.width, aligned.height, aligned.fps) == (reference.width, reference.height, driving.fps)
    assert report.notes == ()


def test_affine_ignores_points_that_are_missing():
    reference = skeleton(REFERENCE, poses(1), (0.3, 0.4), 600, 800)
    driving = skeleton(DRIVER, poses(6, seed=1), (0.3, 0.4), 600, 800)
    _, expected = align(driving[1:], reference, "affine")
    body, score = driving.body.copy(), driving.body_score.copy()
    body[0], score[0] = 0, 0
    _, report = align(dataclasses.replace(driving, body=body, body_score=score), reference, "affine")
    assert report == expected


def test_affine_with_too_little_to_go_by():
    reference = skeleton(REFERENCE, poses(1), (0.3, 0.4), 600, 800)
    driving = skeleton(DRIVER, poses(4, seed=1), (0.5, 0.5), 600, 800)
    aligned, report = align(driving, only(reference, [Body.NECK]), "affine")
    assert report.ratios == {"x": 1.0, "y": 1.0}
    assert "too few joints" in report.summary()
    np.testing.assert_allclose(
        aligned.body[:, 0, Body.NECK], np.tile(reference.body[0, 0, Body.NECK], (4, 1)), atol=1e-6
    )
    aligned, report = align(driving, only(reference, [], hands=True), "affine")
    assert "no joint in common" in report.summary()
    np.testing.assert_allclose(aligned.body, driving.body, atol=1e-6)
    # Upside down: a regression with a negative slope would flip the figure.
    upside_down = dataclasses.replace(reference, body=1 - reference.body)
    _, report = align(reference, upside_down, "affine")
    assert report.ratios["y"] == 1.0
    assert report.notes


def test_none_covers_the_reference_undistorted():
    reference, driving = demo_reference(576, 1024)[1], demo_motion(3, width=1920, height=1080)
    aligned, report = align(driving, reference, "none")
    np.testing.assert_allclose(aligned.body[..., 1], driving.body[..., 1], atol=1e-6)  # the heights coincide
    x = (driving.body[..., 0] - 0.5) * 1920 / 1080 * 1024 / 576 + 0.5
    np.testing.assert_allclose(aligned.body[..., 0], x, atol=1e-5)
    assert report.ratios["y"] == 1.0
    same, _ = align(driving, driving[:1], "none")
    np.testing.assert_array_equal(same.body, driving.body)


@pytest.mark.parametrize(("driving_size", "reference_size"), [((600, 800), (600, 800)), ((1920, 1080), (576, 1024))])
def test_every_limb_gets_the_references_length_and_keeps_its_direction(driving_size, reference_size):
    driving = skeleton(DRIVER, poses(7), (0.4, 0.5), *driving_size)
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), *reference_size)
    aligned, report = align(driving, reference, "limb")
    assert report.notes == ()
    for name, ratio in EXPECTED.items():
        assert report.ratios[name] == pytest.approx(ratio, abs=1e-5)
    before, after = bones(driving), bones(aligned)
    for name, vectors in after.items():
        ratio = EXPECTED["face" if name == "face points" else name]
        np.testing.assert_allclose(vectors, before[name] * ratio, atol=1e-5, err_msg=name)
    for name, length in REFERENCE.items():
        got = np.linalg.norm(after[name.replace("_", " ")], axis=-1)
        np.testing.assert_allclose(got, length, atol=1e-5, err_msg=name)
    neck = aligned.body[:, 0, Body.NECK]
    np.testing.assert_allclose(neck, np.tile(reference.body[0, 0, Body.NECK], (7, 1)), atol=1e-5)
    assert (aligned.width, aligned.height) == reference_size
    np.testing.assert_array_equal(aligned.body_score, driving.body_score)


def test_the_same_body_stays_as_it_is():
    driving = skeleton(DRIVER, poses(9, seed=3), (0.4, 0.5), 600, 800)
    aligned, report = align(driving, skeleton(DRIVER, poses(1), (0.4, 0.5), 600, 800), "limb")
    for name in ("body", "hands", "faces"):
        np.testing.assert_allclose(getattr(aligned, name), getattr(driving, name), atol=1e-5)
    np.testing.assert_allclose(list(report.ratios.values()), 1, atol=1e-5)
    np.testing.assert_allclose(report.shift, 0, atol=1e-5)


def test_the_shape_of_the_pictures_does_not_matter():
    driving = skeleton(DRIVER, poses(9, seed=3), (0.4, 0.5), 600, 800)
    reference = skeleton(REFERENCE, poses(1), (0.4, 0.5), 600, 800)
    expected = align(driving, reference, "limb")[0].body * (600, 800)
    padded = {name: getattr(reference, name) * (0.5, 1) for name in ("body", "hands", "faces")}
    wide = dataclasses.replace(reference, **padded, width=1200)  # 600 more pixels on the right
    np.testing.assert_allclose(align(driving, wide, "limb")[0].body * (1200, 800), expected, atol=1e-2)
    padded = {name: getattr(driving, name) * (0.5, 1) for name in ("body", "hands", "faces")}
    wide = dataclasses.replace(driving, **padded, width=1200)
    np.testing.assert_allclose(align(wide, reference, "limb")[0].body * (600, 800), expected, atol=1e-2)


def test_travel_grows_with_the_body():
    # The neck walks 0.2 picture heights to the right; a reference of twice the size takes twice the step.
    path = np.stack([np.linspace(0.3, 0.5, 5), np.full(5, 0.4)], axis=-1)
    driving = skeleton(DRIVER, np.tile(poses(1), (5, 1)), path, 800, 800)
    double = {name: 2 * length for name, length in DRIVER.items()}
    aligned, _ = align(driving, skeleton(double, poses(1), (0.5, 0.4), 800, 800), "limb")
    x = aligned.body[:, 0, Body.NECK, 0]
    np.testing.assert_allclose(x - x[2], 2 * (path[:, 0] - path[2, 0]), atol=1e-5)
    assert x[2] == pytest.approx(0.5, abs=1e-5)  # the median frame stands where the reference does


def test_single_bad_frames_do_not_decide():
    driving = skeleton(DRIVER, poses(20), (0.4, 0.5), 600, 800)
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), 600, 800)
    _, expected = align(driving, reference, "limb")
    body, score = driving.body.copy(), driving.body_score.copy()
    body[0, 0] = body[0, 0, Body.NECK] + 0.1 * (body[0, 0] - body[0, 0, Body.NECK])  # frame 0: everything foreshortened
    body[1, 0], score[1, 0] = np.random.default_rng(0).uniform(-2, 3, (18, 2)), 0.2  # frame 1: nonsense in doubt
    score[1, 0, Body.NECK] = 0
    _, report = align(dataclasses.replace(driving, body=body, body_score=score), reference, "limb")
    for name, ratio in expected.ratios.items():
        assert report.ratios[name] == pytest.approx(ratio, rel=1e-4)
    np.testing.assert_allclose(report.shift, expected.shift, atol=1e-4)


def test_ratios_are_limited():
    giant_hands = REFERENCE | {"hand": 10 * DRIVER["hand"]}
    driving, reference = (
        skeleton(DRIVER, poses(3), (0.4, 0.5), 600, 800),
        skeleton(giant_hands, poses(1), (0, 0), 600, 800),
    )
    _, report = align(driving, reference, "limb")
    middle = np.median([*(ratio for name, ratio in EXPECTED.items() if name != "hand"), 10])
    assert report.ratios["hand"] == pytest.approx(2.5 * middle, rel=1e-4)
    assert any("hand limited" in note for note in report.notes)


def test_half_body_reference():
    legs = [Body.R_KNEE, Body.R_ANKLE, Body.L_KNEE, Body.L_ANKLE]
    driving = skeleton(DRIVER, poses(5), (0.4, 0.5), 600, 800)
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), 600, 800)
    _, report = align(driving, with_scores(reference, legs, 0.1), "limb")
    assert report.ratios["upper leg"] == report.ratios["lower leg"] == report.ratios["torso"]
    assert "not seen in both and given the torso's ratio: upper leg, lower leg" in report.summary()
    # Without hips the torso is unknown too: the median of neck, face, shoulders, arms and hands.
    aligned, report = align(driving, with_scores(reference, [*legs, Body.R_HIP, Body.L_HIP], 0), "limb")
    known = [EXPECTED[name] for name in ("neck", "face", "shoulders", "upper arm", "lower arm", "hand")]
    assert report.ratios["torso"] == report.ratios["lower leg"] == pytest.approx(np.median(known), abs=1e-5)
    np.testing.assert_allclose(bones(aligned)["lower leg"], bones(driving)["lower leg"] * np.median(known), atol=1e-5)


def test_one_side_is_enough():
    driving = skeleton(DRIVER, poses(5), (0.4, 0.5), 600, 800)
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), 600, 800)
    right = [Body.R_ELBOW, Body.R_WRIST, Body.R_HIP, Body.R_KNEE, Body.R_ANKLE]
    _, report = align(driving, with_scores(reference, right, 0), "limb")
    for name in ("upper arm", "lower arm", "torso", "upper leg", "lower leg"):
        assert report.ratios[name] == pytest.approx(EXPECTED[name], abs=1e-5)


def test_reference_with_only_a_face():
    driving = skeleton(DRIVER, poses(5), (0.4, 0.5), 600, 800)
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), 600, 800)
    head = [Body.NOSE, Body.R_EYE, Body.L_EYE, Body.R_EAR, Body.L_EAR]
    aligned, report = align(driving, only(reference, head, faces=True), "limb")
    assert set(report.ratios.values()) == {report.ratios["face"]}
    assert report.ratios["face"] == pytest.approx(EXPECTED["face"], abs=1e-5)
    assert "the nose was matched" in report.summary()
    np.testing.assert_allclose(
        np.median(aligned.body[:, 0, Body.NOSE], axis=0), reference.body[0, 0, Body.NOSE], atol=1e-5
    )
    assert_all_finite(aligned)


def test_missing_joints_stay_missing_and_those_below_them_still_move():
    driving = only(skeleton(DRIVER, poses(5), (0.4, 0.5), 600, 800), [j for j in Body if j != Body.R_ELBOW])
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), 600, 800)
    aligned, _ = align(driving, reference, "limb")
    np.testing.assert_array_equal(aligned.body_score, driving.body_score)
    before = (driving.body[:, 0, Body.R_WRIST] - driving.body[:, 0, Body.R_SHOULDER]) * (0.75, 1)
    after = (aligned.body[:, 0, Body.R_WRIST] - aligned.body[:, 0, Body.R_SHOULDER]) * (0.75, 1)
    np.testing.assert_allclose(after, before * EXPECTED["lower arm"], atol=1e-5)


def test_a_neck_lost_for_a_while_does_not_make_the_figure_jump():
    driving = demo_motion(40, fps=30.0)
    reference = demo_reference()[1]
    expected, _ = align(driving, reference, "limb")
    lost, _ = align(with_scores(driving, [Body.NECK], 0, slice(10, 20)), reference, "limb")
    shown = [joint for joint in Body if joint != Body.NECK]
    difference = (lost.body - expected.body)[:, :, shown]
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:1], difference.shape), atol=5e-3)


def test_nothing_in_common_and_next_to_nothing():
    driving = skeleton(DRIVER, poses(5), (0.4, 0.5), 600, 800)
    reference = skeleton(REFERENCE, poses(1, seed=9), (0.2, 0.3), 600, 800)
    parts = {"legs": [9, 10, 12, 13], "face": [0, 14, 15], "one wrist": [4], "neck": [1], "shoulders": [2, 5]}
    for shown in parts.values():
        for shown_by_driver in parts.values():
            aligned, report = align(only(driving, shown_by_driver), only(reference, shown), "limb")
            assert_all_finite(aligned)
            assert all(np.isfinite(ratio) and ratio > 0 for ratio in report.ratios.values())
    aligned, report = align(only(driving, [], hands=True), only(reference, [], faces=True), "limb")
    assert_all_finite(aligned)
    assert "no body point in common" in report.summary()


def test_smoothing_takes_out_jitter_and_leaves_the_motion():
    clean = demo_motion(90, fps=30.0)
    rng = np.random.default_rng(0)
    noisy = dataclasses.replace(clean, body=clean.body + rng.normal(0, 0.002, clean.body.shape))
    smooth, _ = align(noisy, clean[:1], "none", smooth=True)

    def jitter(k: Keypoints) -> float:
        return float(np.abs(np.diff(k.body, n=2, axis=0)).mean())

    assert jitter(smooth) < 0.5 * jitter(noisy)
    assert np.abs(smooth.body - clean.body).mean() < 0.9 * np.abs(noisy.body - clean.body).mean()
    assert np.abs(smooth.body - clean.body).max() < 0.02


def test_one_euro_by_hand():
    # At rest nothing changes; a step of 1 at 30 Hz is followed by the gain of the cutoff its speed gives.
    still = np.full((5, 1, 2), 0.3)
    present = np.ones((5, 1), bool)
    np.testing.assert_allclose(one_euro(still, present, 30.0), still)
    step = np.zeros((2, 1, 2))
    step[1, 0, 0] = 1.0
    speed = 30 / (1 + 30 / (2 * np.pi * 1.0))
    gain = 1 / (1 + 30 / (2 * np.pi * (1.5 + 10 * speed)))
    expected = np.array([[(1 - gain) / 2, 0], [(1 + gain) / 2, 0]])
    np.testing.assert_allclose(one_euro(step, present[:2], 30.0)[:, 0], expected, rtol=1e-9)
    absent = np.array([[True], [False]])
    np.testing.assert_array_equal(one_euro(step, absent, 30.0), step)


def test_what_cannot_be_aligned():
    driving, reference = demo_motion(4), demo_reference()[1]
    with pytest.raises(InputError, match="nobody is to be seen in the reference picture"):
        align(driving, only(reference, []), "limb")
    with pytest.raises(InputError, match="nobody is to be seen in the driving motion"):
        align(only(driving, []), reference, "affine")
    with pytest.raises(InputError, match="select one first"):
        align(driving, driving, "limb")
    couple = dataclasses.replace(driving, **{name: np.repeat(getattr(driving, name), 2, axis=1) for name in ARRAYS})
    with pytest.raises(InputError, match="select one first"):
        align(couple, reference, "limb")


@pytest.mark.parametrize(
    "source",
    ["made", pytest.param("real", marks=pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/media"))],
)
def test_motions_on_each_other(source):
    motions = [demo_motion(30)]
    if source == "real":
        motions += [load_keypoints(path) for path in sorted((SHARED / "media/poses").glob("*.npz"))]
        assert len(motions) > 1
    for driving in motions:
        for other in motions:
            aligned, report = align(driving, other[:1], "limb", smooth=True)
            assert_all_finite(aligned)
            if driving is other:  # a body's measures over the clip are about those of its first frame
                assert all(0.8 < ratio < 1.25 for ratio in report.ratios.values()), report.summary()
            seen = driving.body_score[:, 0, Body.NECK] > 0.3
            neck = np.median(aligned.body[seen, 0, Body.NECK], axis=0)
            np.testing.assert_allclose(neck, other.body[0, 0, Body.NECK], atol=0.01)
