"""Free movement in the synthetic world: turned backs, swinging hair and skirts, arms that pass behind the body."""

import dataclasses

import numpy as np
import pytest

from mimicmotion_jax.pose.keypoints import Body
from mimicmotion_jax.pose.layout import FACE
from mimicmotion_jax.synthetic import world
from mimicmotion_jax.synthetic.appearance import make_character
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.drawing import Layer, orders
from mimicmotion_jax.synthetic.drawing import fill as make_fill
from mimicmotion_jax.synthetic.figure import figure_points, turned_to_us
from mimicmotion_jax.synthetic.head import face_points
from mimicmotion_jax.synthetic.heading import TURNING_KINDS
from mimicmotion_jax.synthetic.motion import KINDS, kind_of, kinds_of, make_tracks
from mimicmotion_jax.synthetic.parts import View
from mimicmotion_jax.synthetic.skeleton import Joints, pose
from mimicmotion_jax.synthetic.source import draw_scenes, scene_digest
from mimicmotion_jax.synthetic.surface import Strip
from mimicmotion_jax.synthetic.sway import DAMPING, DELAYS, FREQUENCY, displacement, make_sway
from mimicmotion_jax.synthetic.world import Rendered, Scene, make_scenes, render

VIEW = View(scale=100.0, x=0.0, y=0.0)


def free_scene(kind: str, character: int = 14, **changes) -> Scene:
    motion = next(number for number in range(1000) if kind_of(number, "free") == kind)
    scene = Scene(character, motion, 8, "half", 96, 128, num_frames=6, fps=2.0, movement="free")
    return dataclasses.replace(scene, **changes)


def joints_at(heading: float, motion: int = 3) -> Joints:
    tracks = make_tracks(motion, 2, 15.0)
    still = {name: 0 * getattr(tracks, name) for name in ("pelvis_turn", "chest_turn", "head_turn")}
    tracks = dataclasses.replace(tracks, heading=np.full(2, heading), **still)
    sway = make_sway(make_character(14).body, motion, np.zeros(2))
    return dataclasses.replace(pose(make_character(14).body, tracks, (1.0, 2.0)), sway=sway)


def test_a_head_turned_by_half_a_turn_shows_no_face_and_its_ears_change_sides():
    character, face = make_character(14), face_points(np.zeros(2), np.zeros(2), 0.5)
    front, back = joints_at(0.0), joints_at(np.pi)
    seen, hidden = turned_to_us(front, face), turned_to_us(back, face)
    facial = [Body.NOSE, Body.L_EYE, Body.R_EYE, *range(FACE, FACE + 68)]
    assert seen[:, facial].all()
    assert not hidden[:, facial].any()
    assert hidden[:, [Body.L_EAR, Body.R_EAR, Body.L_SHOULDER]].all()
    x = [VIEW.project(figure_points(character, joints, face))[..., 0] for joints in (front, back)]
    for left, right in ((Body.L_EAR, Body.R_EAR), (Body.L_SHOULDER, Body.R_SHOULDER), (Body.L_HIP, Body.R_HIP)):
        assert (x[0][:, left] > x[0][:, right]).all()
        assert (x[1][:, left] < x[1][:, right]).all()
    middle = front.pelvis[:, 0] * 100  # a half turn mirrors x at the axis, which the pelvis sways about
    np.testing.assert_allclose(x[1][:, Body.L_HIP] + middle, -(x[0][:, Body.L_HIP] - middle), atol=1e-9)


def test_whole_turns_leave_bones_alone_and_toes_point_where_the_person_faces():
    for heading in (0.0, 0.5 * np.pi, np.pi, 5.0):
        joints = joints_at(heading)
        np.testing.assert_allclose(np.linalg.norm(joints.knees - joints.hips, axis=-1), make_character(14).body.thigh)
        way = (joints.toes - joints.heels).mean(1)
        forwards = np.array([-np.sin(heading), 0, -np.cos(heading)])  # rotated about the vertical axis by hand
        np.testing.assert_allclose(way @ forwards, 0.097, atol=0.002)


def test_backs_are_seen_in_every_kind_of_turn():
    for kind in TURNING_KINDS:
        tracks = make_tracks(free_scene(kind).motion, 400, 10.0, "free")
        away = np.cos(tracks.heading + tracks.pelvis_turn[:, 0])
        assert away.min() < (-0.9 if kind != "pace" else 0.3)
        assert np.abs(np.diff(tracks.heading)).max() < 0.5  # no jump at 10 frames per second
    for kind in KINDS:
        assert not make_tracks(free_scene(kind).motion, 5, 10.0, "free").heading.any()
    assert set(kinds_of("free")) == {*KINDS, *TURNING_KINDS}
    assert kinds_of("facing") == KINDS


def test_a_weight_on_a_spring_rests_lags_and_rings():
    """Against the differential equation: at rest, at a constant velocity, and at a sine, integrated in small steps."""
    still = np.full((1, len(DELAYS)), 2.5)
    np.testing.assert_allclose(displacement(still, still[:, 0]), 0, atol=1e-12)
    lag = displacement(-3.0 * DELAYS[None], np.zeros(1))
    np.testing.assert_allclose(lag, -3.0 * 2 * DAMPING / FREQUENCY, rtol=0.03)
    step, position, velocity = 1e-3, 0.0, 0.0
    for i in range(6000):
        pull = FREQUENCY**2 * (np.sin(3 * i * step) - position) - 2 * DAMPING * FREQUENCY * velocity
        velocity += step * pull
        position += step * velocity
    found = displacement(np.sin(3 * (6.0 - DELAYS))[None], np.sin([18.0]))
    np.testing.assert_allclose(found, position - np.sin(18.0), atol=0.02)


def test_a_hem_stays_behind_the_hips():
    seconds = np.arange(120) / 30
    scene = free_scene("spin")
    sway = make_sway(make_character(14).body, scene.motion, seconds)
    tracks = make_tracks(scene.motion, 120, 30.0, "free")
    rate = np.gradient(tracks.heading + tracks.pelvis_turn[:, 0], seconds)
    assert (np.sign(sway.twist) == -np.sign(rate)).mean() > 0.95
    assert abs(sway.hem).max() <= 0.06
    assert abs(sway.hair).max() <= 0.07
    assert abs(sway.hem).max() > 0.005


def test_a_free_frame_depends_on_its_time_only():
    short, long = (render(free_scene("spin", num_frames=n, fps=8.0)) for n in (2, 5))
    np.testing.assert_array_equal(long.frames[:2], short.frames)
    halved = render(free_scene("spin", num_frames=3, fps=4.0))
    np.testing.assert_array_equal(halved.frames, long.frames[::2])


def test_keypoints_of_free_movement_lie_on_the_figure():
    on_figure: list[np.ndarray] = []
    faces = 0
    for scene in make_scenes(10, 6, "train", 96, 128, 3, 1.0, "free"):
        video = render(scene)
        body, score = video.keypoints.body[:, 0] * [96, 128], video.keypoints.body_score[:, 0]
        x, y = np.floor(np.where(score[..., None] > 0, body, 0)).astype(int).transpose(2, 0, 1)
        near = video.foreground | np.roll(video.foreground, 1, 1) | np.roll(video.foreground, -1, 1)
        on_figure.append(near[np.arange(3)[:, None], y, x][score > 0])
        seen = video.keypoints.faces_score[:, 0].sum(-1)
        away = body[:, Body.L_SHOULDER, 0] < body[:, Body.R_SHOULDER, 0] - 6
        ear_away = body[:, Body.L_EAR, 0] < body[:, Body.R_EAR, 0] - 4
        assert not seen[ear_away].any()
        faces += int(away.sum())
    assert np.concatenate(on_figure).mean() > 0.99
    assert faces > 3  # backs are seen


def test_layers_that_pass_each_other_change_places_gradually():
    """The nearer layer's share is 1/2 + (difference of depths) / (0.016 * difference of `blend`)."""
    square = np.array([[[0.0, 0], [9, 0], [9, 9], [0, 9]]])

    def layer(depth: float, blend: float, shift: float = 0.0) -> Layer:
        made = Layer(1, str(blend), np.array([depth]), blend=blend)
        made.body.append(make_fill(square + shift, (1, 2, 3)))
        return made

    trunk = layer(0.0, 0.0)
    for depth in (-0.02, -0.006, -0.001, 0.004, 0.03):
        arm = layer(depth, 1.0)
        in_front = sum(share for share, order in orders([trunk, arm], 0) if order[-1] is arm)
        np.testing.assert_allclose(in_front, np.clip(0.5 - depth / 0.016, 0, 1), atol=1e-9)
    assert len(orders([trunk, layer(0.001, 1.0, shift=40)], 0)) == 1  # they do not overlap


def largest_jump(video: Rendered) -> float:
    """Return the largest surplus, over the median of four neighbours each side, of the share of pixels that change."""
    change = (abs(np.diff(video.frames.astype(int), axis=0)).max(-1) > 60).mean((1, 2))
    return max(change[i] - np.median(change[max(i - 4, 0) : i + 5]) for i in range(len(change)))


def test_nothing_jumps_while_an_arm_goes_behind_the_back():
    """Without blending the largest is 0.0146."""
    assert largest_jump(render(free_scene("behind", 7, num_frames=60, fps=60.0))) < 0.01


def test_blending_is_rare(monkeypatch):
    counts: list[int] = []
    monkeypatch.setattr(world, "orders", lambda *args: counts.append(len(orders(*args))) or orders(*args))
    for scene in make_scenes(12, 3, "train", 64, 64, 4, 7.5, "free"):
        render(scene)
    assert 1 < np.mean(counts) < 1.7
    counts.clear()
    render(make_scenes(1, 3, "train", 64, 64, 2)[0])
    assert set(counts) == {1}


def test_a_shape_that_comes_round_is_seen_again_at_the_front():
    strip = Strip(np.zeros((2, 2, 2)), np.full((2, 2, 2), [1.0, 0.0]), np.array([np.pi, 0.0]))
    at_the_back = strip.at([0, 1], [np.pi - 0.1, np.pi + 0.1])[..., 0]
    np.testing.assert_allclose(at_the_back[0], np.sin([-0.1, 0.1]), atol=1e-12)
    np.testing.assert_allclose(abs(at_the_back[1]), 1)


@pytest.mark.parametrize(("number", "digest"), [(0, "4e31c8b2584b4638"), (1, "cf8eebce4b92b913")])
def test_scenes_of_before_keep_their_names(number, digest):
    scene = make_scenes(2, 7, "test", 96, 128, 18, 15.0)[number]
    assert scene_digest(scene)[:16] == digest
    assert scene_digest(dataclasses.replace(scene, movement="free"))[:16] != digest


def test_a_world_has_one_kind_of_movement():
    scenes = [draw_scenes(WorldConfig(movement=movement), 3) for movement in ("facing", "free")]
    assert [scene.movement for drawn in scenes for scene in drawn] == ["facing"] * 3 + ["free"] * 3
    assert [dataclasses.replace(scene, movement="free") for scene in scenes[0]] == scenes[1]
