"""MediaPipe detector: a drawn person whose joints are known, the index tables against MediaPipe's own names."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mimicmotion_jax.pose.detect import detect_image, detect_video
from mimicmotion_jax.pose.landmarks import MEDIAPIPE_BODY, MEDIAPIPE_FACE
from mimicmotion_jax.pose.mediapipe_holistic import MediapipeDetector, _fade, _read, _starts, _tiles

mediapipe = pytest.importorskip("mediapipe")  # there is no wheel for Python 3.13

# The drawing's OpenPose joints in pixels: the right hand (on the left of the picture) is raised.
JOINTS = {
    **{
        "nose": (0, 180, 106),
        "right shoulder": (2, 138, 166),
        "right elbow": (3, 105, 225),
        "right wrist": (4, 85, 170),
    },
    **{"left shoulder": (5, 222, 166), "left elbow": (6, 255, 225), "left wrist": (7, 250, 290)},
    **{"right knee": (9, 156, 370), "left knee": (12, 204, 370), "right eye": (14, 169, 94), "left eye": (15, 191, 94)},
}
WIDTH, HEIGHT = 360, 480


def draw_person() -> np.ndarray:
    background, skin, hair, shirt, trousers = (
        (215, 222, 228),
        (224, 172, 140),
        (70, 45, 30),
        (40, 80, 170),
        (60, 60, 70),
    )
    picture = np.full((HEIGHT, WIDTH, 3), background, np.uint8)
    cv2.ellipse(picture, (180, 92), (36, 44), 0, 0, 360, hair, -1)
    cv2.line(picture, (180, 120), (180, 160), skin, 26)
    cv2.ellipse(picture, (180, 100), (28, 36), 0, 0, 360, skin, -1)
    for x in (169, 191):
        cv2.ellipse(picture, (x, 94), (6, 3), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(picture, (x, 94), 3, (40, 30, 20), -1)
        cv2.line(picture, (x - 7, 86), (x + 7, 86), hair, 2)
    cv2.line(picture, (180, 98), (178, 109), (190, 140, 110), 2)
    cv2.ellipse(picture, (180, 119), (9, 3), 0, 0, 360, (180, 70, 70), -1)
    torso = [(135, 158), (165, 148), (195, 148), (225, 158), (218, 285), (142, 285)]
    cv2.fillPoly(picture, [np.array(torso)], shirt)
    for side, wrist in ((-1, (85, 170)), (1, (250, 290))):
        shoulder, elbow = (180 + side * 42, 166), (180 + side * 75, 225)
        hip, knee, ankle = (180 + side * 20, 285), (180 + side * 24, 370), (180 + side * 26, 450)
        cv2.line(picture, shoulder, elbow, shirt, 24)
        cv2.line(picture, elbow, wrist, skin, 16)
        cv2.circle(picture, wrist, 11, skin, -1)
        cv2.line(picture, hip, knee, trousers, 32)
        cv2.line(picture, knee, ankle, trousers, 24)
        cv2.ellipse(picture, (ankle[0] + side * 6, 458), (16, 8), 0, 0, 360, (30, 30, 30), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def draw_small_person() -> np.ndarray:
    """The drawing at 0.375 of its size with its corner at (1300, 600) of a 1920x1080 picture."""
    picture = draw_person()
    large = np.full((1080, 1920, 3), picture[0, 0], np.uint8)
    large[600:780, 1300:1435] = cv2.resize(picture, (135, 180), interpolation=cv2.INTER_AREA)
    return large


@pytest.fixture(scope="module")
def detector():
    return MediapipeDetector()


def test_joints_of_a_drawn_person(detector):
    keypoints = detect_image(draw_person(), detector)
    assert (keypoints.num_frames, keypoints.num_people, keypoints.width, keypoints.height) == (1, 1, WIDTH, HEIGHT)
    body = keypoints.body[0, 0] * [WIDTH, HEIGHT]
    for name, (index, x, y) in JOINTS.items():
        assert np.linalg.norm(body[index] - [x, y]) < 17, name  # less than the width of a limb
        assert 0.8 < keypoints.body_score[0, 0, index] <= 1, name
    np.testing.assert_allclose(body[1], (body[2] + body[5]) / 2, rtol=1e-4)
    assert keypoints.body_score[0, 0, 1] == 1


def test_face_of_a_drawn_person(detector):
    keypoints = detect_image(draw_person(), detector)
    assert (keypoints.faces_score == 1).all()
    face = keypoints.faces[0, 0] * [WIDTH, HEIGHT]
    centers = {
        "right eye": (slice(36, 42), 169, 94),
        "left eye": (slice(42, 48), 191, 94),
        "mouth": (slice(48, 68), 180, 119),
    }
    for name, (points, x, y) in centers.items():
        assert np.linalg.norm(face[points].mean(0) - [x, y]) < 5, name
    assert np.linalg.norm(face[8] - [180, 136]) < 8  # chin
    assert face[0, 0] < 165  # the jaw starts on the person's right
    assert face[16, 0] > 195
    # Balls for hands are not hands.
    assert not keypoints.hands_score.any()


def test_video_follows_the_person_and_mirrors(detector):
    picture = draw_person()
    shifted = [np.roll(picture, 4 * index, axis=1) for index in range(6)]
    keypoints = detect_video(shifted, detector, fps=25, progress=False)
    assert (keypoints.num_frames, keypoints.num_people, keypoints.fps) == (6, 1, 25)
    moved = (keypoints.body[5, 0, :9] - keypoints.body[0, 0, :9]) * [WIDTH, HEIGHT]
    np.testing.assert_allclose(moved.mean(0), [20, 0], atol=5)  # tracking smooths, so it lags a little

    mirrored = detect_image(np.ascontiguousarray(picture[:, ::-1]), detector)
    expected = detect_image(picture, detector).mirrored()
    error = np.abs(mirrored.body - expected.body)[0, 0, :14] * [WIDTH, HEIGHT]
    assert error.max() < 10


def test_small_person_in_a_large_picture(detector):
    large = draw_small_person()
    with mediapipe.solutions.holistic.Holistic(static_image_mode=True) as plain:
        assert plain.process(large).pose_landmarks is None, "the case shows nothing if MediaPipe finds it by itself"
    still = detect_image(large, detector)
    video = detect_video([large] * 2, detector, fps=25, progress=False)
    for keypoints in (still, video[:1], video[1:]):
        body = keypoints.body[0, 0] * [1920, 1080]
        for name, (index, x, y) in JOINTS.items():
            if "knee" not in name:  # nothing in the drawing marks them
                assert np.linalg.norm(body[index] - [1300 + x * 0.375, 600 + y * 0.375]) < 9, name


def test_nobody(detector):
    empty = np.full((200, 300, 3), 128, np.uint8)
    assert detect_image(empty, detector).num_people == 0
    # Nobody at first, then somebody, then nobody: MediaPipe may go on for a frame.
    person = draw_person()
    frames = [np.full_like(person, 128)] * 2 + [person] * 3 + [np.full_like(person, 128)] * 3
    keypoints = detect_video(frames, detector, fps=25, progress=False)
    seen = (keypoints.body_score > 0.3).sum(-1)[:, 0] > 3
    assert seen[:6].tolist() == [False, False, True, True, True, False]


def test_tables_against_mediapipes_names():
    coco = "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist"
    coco += " right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
    names = [mediapipe.solutions.pose.PoseLandmark(index).name.lower() for index in MEDIAPIPE_BODY]
    assert names == coco.split()

    mesh = mediapipe.solutions.face_mesh_connections
    regions = {
        mesh.FACEMESH_FACE_OVAL: MEDIAPIPE_FACE[:17],
        mesh.FACEMESH_RIGHT_EYEBROW: MEDIAPIPE_FACE[17:22],
        mesh.FACEMESH_LEFT_EYEBROW: MEDIAPIPE_FACE[22:27],
        mesh.FACEMESH_NOSE: MEDIAPIPE_FACE[27:36],
        mesh.FACEMESH_RIGHT_EYE: MEDIAPIPE_FACE[36:42],
        mesh.FACEMESH_LEFT_EYE: MEDIAPIPE_FACE[42:48],
        mesh.FACEMESH_LIPS: MEDIAPIPE_FACE[48:],
    }
    for connections, points in regions.items():
        vertices = {vertex for edge in connections for vertex in edge}
        assert set(points) <= vertices
        assert len(set(points)) == len(points)
    wrist_to_tip = {(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (17, 18), (19, 20)}  # OpenPose's order of a hand
    assert wrist_to_tip <= set(mediapipe.solutions.hands_connections.HAND_CONNECTIONS)


def test_every_point_goes_to_its_place():
    """MediaPipe's own result type, filled in: point i of a part lies at x = part + i / 1000, y = 0.5 of the window."""

    from mediapipe.framework.formats.landmark_pb2 import NormalizedLandmark, NormalizedLandmarkList

    def landmarks(part, count):
        points = [NormalizedLandmark(x=part + index / 1000, y=0.5, visibility=0.9) for index in range(count)]
        return NormalizedLandmarkList(landmark=points)

    class Filled:
        pose_landmarks, face_landmarks = landmarks(0.1, 33), landmarks(0.2, 468)
        left_hand_landmarks, right_hand_landmarks = landmarks(0.7, 21), landmarks(0.8, 21)

        def process(self, image):
            assert image.shape == (100, 200, 3)
            return self

    frame = np.zeros((300, 400, 3), np.uint8)
    points, scores = _read(Filled(), frame, (50, 20, 250, 120))
    x, y = points[0].T
    np.testing.assert_allclose(y[scores[0] > 0], 20 + 0.5 * 100)
    np.testing.assert_allclose(x[:17], 50 + 200 * (0.1 + np.array(MEDIAPIPE_BODY) / 1000), rtol=1e-5)
    np.testing.assert_allclose(x[23:91], 50 + 200 * (0.2 + np.array(MEDIAPIPE_FACE) / 1000), rtol=1e-5)
    np.testing.assert_allclose(x[91:112], 50 + 200 * (0.7 + np.arange(21) / 1000), rtol=1e-5)  # the left hand
    np.testing.assert_allclose(x[112:], 50 + 200 * (0.8 + np.arange(21) / 1000), rtol=1e-5)
    np.testing.assert_allclose(scores[0], [0.9] * 17 + [0] * 6 + [1] * 110, rtol=1e-6)


def test_points_outside_the_picture_fade():
    frame = np.zeros((100, 200, 3), np.uint8)  # the long side's 5 % are 10 pixels
    points = np.array([[0, 0], [200, 100], [-5, 50], [100, 108], [210, 50], [300, 500]], np.float32)
    np.testing.assert_allclose(_fade(points, frame), [1, 1, 0.5, 0.2, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(1080, 1920, 1080), (1080, 1920, 540), (144, 176, 72), (3, 3, 1)]
)
def test_tiles_cover_the_picture_and_overlap(height, width, side):
    covered = np.zeros((height, width), int)
    for left, top, right, bottom in _tiles(np.zeros((height, width, 3), np.uint8), side):
        assert (right - left, bottom - top) == (side, side)
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    assert np.diff(_starts(width, side)).max(initial=0) <= max(side // 2, 1)


IMAGES = Path(__file__).parents[3] / "shared" / "media" / "images"


@pytest.mark.parametrize(
    "source",
    ["drawn", pytest.param("real", marks=pytest.mark.skipif(not IMAGES.is_dir(), reason="no ../shared/media"))],
)
def test_pictures_of_one_person(detector, source):
    pictures = [draw_person()]
    if source == "real":
        paths = [path for path in sorted(IMAGES.iterdir()) if path.suffix in (".jpg", ".png")]
        pictures = [cv2.imread(str(path))[..., ::-1] for path in paths]
        assert pictures
    for picture in pictures:
        keypoints = detect_image(np.ascontiguousarray(picture), detector)
        assert keypoints.num_people == 1
        assert (keypoints.body_score[0, 0, [0, 2, 5]] > 0.9).all()
        assert (keypoints.faces_score == 1).all()
        # The person's left shoulder and left hand are on the right of the picture.
        assert keypoints.body[0, 0, 5, 0] > keypoints.body[0, 0, 2, 0]
        for hand, wrist, other in ((0, 7, 4), (1, 4, 7)):
            if keypoints.hands_score[0, 0, hand].any():
                distance = np.linalg.norm(
                    keypoints.hands[0, 0, hand, 0] - keypoints.body[0, 0, [wrist, other]], axis=-1
                )
                assert distance[0] < distance[1]


def test_nothing_is_written_to_the_terminal(capfd):
    detector = MediapipeDetector()
    detect_image(draw_person(), detector)
    detect_video([draw_small_person()], detector, 25, progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow  # the test before has a process whose libraries have started
def test_nothing_is_written_by_a_new_process():
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]}; "
    code += "from test_mediapipe import *; d = MediapipeDetector(); detect_image(draw_person(), d); "
    code += "detect_video([draw_small_person()] * 2, d, 25, progress=False)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)
