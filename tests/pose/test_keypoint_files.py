"""Keypoint files of other programs: each layout is written here by hand, and read as the same people."""

import collections
import io
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from test_keypoints import assert_same, random_keypoints

from mimicmotion_jax.pose.files import is_keypoints, load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.pose.recording import SizeMissingError
from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.runtime.errors import InputError

WIDTH, HEIGHT = 640, 480
SIZE = np.array([WIDTH, HEIGHT])


def make_keypoints(num_frames=3, num_people=2) -> Keypoints:
    """People inside the picture, whose second has no right hand in frame 1; scores are 1 or 0, as editors write."""
    k = random_keypoints(num_frames, num_people, WIDTH, HEIGHT, fps=30.0)
    for name in ("body", "hands", "faces"):
        getattr(k, name)[...] = np.clip(getattr(k, name), 0.02, 0.98)
        getattr(k, f"{name}_score")[...] = 1
    if num_people > 1:
        k.hands_score[1, 1, 1] = 0
        k.hands[1, 1, 1] = 0
    return k


def flat(points, scores, scale=SIZE):
    return np.concatenate([points * scale, scores[:, None]], axis=1).ravel().tolist() if scores.any() else None


def person(k, f, p, scale=SIZE):
    return {
        "pose_keypoints_2d": flat(k.body[f, p], k.body_score[f, p], scale),
        "face_keypoints_2d": flat(k.faces[f, p], k.faces_score[f, p], scale),
        "hand_left_keypoints_2d": flat(k.hands[f, p, 0], k.hands_score[f, p, 0], scale),
        "hand_right_keypoints_2d": flat(k.hands[f, p, 1], k.hands_score[f, p, 1], scale),
    }


def people(k, scale=SIZE):
    return [[person(k, f, p, scale) for p in range(k.num_people)] for f in range(k.num_frames)]


CANVAS = {"canvas_height": HEIGHT, "canvas_width": WIDTH}


def by_point(found):
    return {key: value and np.reshape(value, (-1, 3)).tolist() for key, value in found.items()}


DIALECTS = {
    "a preprocessor's list of frames": lambda k: [{"people": frame, **CANVAS} for frame in people(k)],
    "with animals and shares of the picture": lambda k: [
        {"people": frame, "animals": [], **CANVAS} for frame in people(k, np.ones(2))
    ],
    "points in rows": lambda k: [{"people": [by_point(p) for p in frame], **CANVAS} for frame in people(k)],
    "people as a dictionary": lambda k: [
        {"people": {str(number): p for number, p in enumerate(frame)}, **CANVAS} for frame in people(k)
    ],
    "frames as a dictionary": lambda k: {
        f"frame_{number}": {"people": frame, **CANVAS} for number, frame in enumerate(people(k), start=8)
    },
    "frames inside, size outside": lambda k: {"frames": [{"people": f} for f in people(k)], **CANVAS, "fps": 30},
    "size in an object": lambda k: {
        "metadata": {"width": WIDTH, "height": HEIGHT, "fps": 30},
        "frames": {str(number): {"people": frame} for number, frame in enumerate(people(k))},
    },
    "frames as lists of people": lambda k: {"frames": people(k), "width": WIDTH, "height": HEIGHT},
    "the names of OpenPose's first version": lambda k: [
        {"people": [{key.removesuffix("_2d"): value for key, value in p.items()} for p in frame], **CANVAS}
        for frame in people(k)
    ],
    "six feet points and two pupils": lambda k: [
        {
            "people": [
                p
                | {
                    "pose_keypoints_2d": p["pose_keypoints_2d"] + [5, 5, 1] * 6,
                    "face_keypoints_2d": p["face_keypoints_2d"] + [5, 5, 1] * 2,
                }
                for p in frame
            ],
            **CANVAS,
        }
        for frame in people(k)
    ],
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_of_openpose(tmp_path, dialect, encoding):
    k = make_keypoints()
    (tmp_path / "k.json").write_text(json.dumps(DIALECTS[dialect](k)), encoding=encoding)
    assert_same(load_keypoints(tmp_path / "k.json", fps=30), k, pixels=1e-3, scores=1e-6)


def test_missing_parts_and_points(tmp_path):
    """Null, absent and empty parts; points that are null, zero, or without a score."""
    body = [[10, 20]] * 17 + [None]
    someone = {"pose_keypoints_2d": body, "hand_left_keypoints_2d": [], "face_keypoints_2d": [None, None, None] * 68}
    content = {"people": [someone, None, {"pose_keypoints_2d": [0, 0, 0] * 18}, {}], **CANVAS, "version": None}
    (tmp_path / "k.json").write_text(json.dumps(content))
    k = load_keypoints(tmp_path / "k.json")
    assert (k.num_frames, k.num_people) == (1, 3)
    np.testing.assert_array_equal(k.body_score[0], [[1] * 17 + [0], [0] * 18, [0] * 18])
    assert not (k.faces_score.any())
    assert not (k.hands_score.any())
    for nobody in (None, [], {}):
        (tmp_path / "k.json").write_text(json.dumps([{"people": nobody, **CANVAS}] * 2))
        assert load_keypoints(tmp_path / "k.json").body.shape == (2, 0, 18, 2)


def test_an_editors_list_of_points(tmp_path):
    points = np.arange(36).reshape(18, 2) + 20.0
    for listed in (points.tolist(), [points.tolist()] * 2, np.concatenate([points, points]).tolist()):
        (tmp_path / "pose.json").write_text(json.dumps({"width": 100, "height": 50, "keypoints": listed}))
        k = load_keypoints(tmp_path / "pose.json")
        np.testing.assert_allclose(k.body[0, -1], points / (100, 50), rtol=1e-6)
        assert k.body_score.all()


def test_seventeen_points_are_cocos(tmp_path):
    points = np.arange(34).reshape(17, 2) + 20
    body = np.column_stack([points, np.ones(17)]).ravel().tolist()
    (tmp_path / "k.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": body}], **CANVAS}))
    k = load_keypoints(tmp_path / "k.json")
    np.testing.assert_allclose(k.body[0, 0, Body.L_WRIST] * SIZE, points[9], rtol=1e-5)
    np.testing.assert_allclose(k.body[0, 0, Body.NECK] * SIZE, points[[5, 6]].mean(0), rtol=1e-5)


def test_shares_of_the_picture_are_recognised_and_other_units_refused(tmp_path):
    k, path = make_keypoints(), tmp_path / "k.json"
    path.write_text(json.dumps([{"people": frame} for frame in people(k, np.ones(2))]))
    with pytest.raises(SizeMissingError, match="size"):
        load_keypoints(path)
    with collect_assumptions() as notes:
        assert_same(load_keypoints(path, WIDTH, HEIGHT, 30), k, pixels=1e-3, scores=1e-6)
    assert [note for note in notes if "0 to 1" in note]
    path.write_text(json.dumps([{"people": frame, **CANVAS} for frame in people(k)]))
    with collect_assumptions() as notes:
        load_keypoints(path, fps=30)
    assert not notes
    k = make_keypoints()
    for name in ("body", "hands", "faces"):
        getattr(k, name)[...] = getattr(k, name) * 2 - 1
    path.write_text(json.dumps([{"people": frame, **CANVAS} for frame in people(k, np.ones(2))]))
    with pytest.raises(InputError, match=r"k\.json has coordinates from -0\.96 to 0\.96, neither pixels nor shares"):
        load_keypoints(path)
    path.write_text(json.dumps([{"people": frame} for frame in people(make_keypoints())]))
    with pytest.raises(InputError, match=r"most points outside a picture of 64x48 pixels, up to .*; give the size"):
        load_keypoints(path, 64, 48)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    k = make_keypoints(num_frames=4)
    for layout in ("v_{}_keypoints.json", "pose {}.json", "{}.JSON"):
        folder = tmp_path / layout[:2]
        folder.mkdir()
        for number, frame in zip((1, 2, 9, 10), people(k), strict=True):
            (folder / layout.format(number)).write_text(json.dumps({"people": frame, **CANVAS}), encoding="utf-8-sig")
        assert is_keypoints(folder)
        assert_same(load_keypoints(folder, fps=30), k, pixels=1e-3, scores=1e-6)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").touch()
    (tmp_path / "pictures" / "settings.json").write_text("{}")
    assert not is_keypoints(tmp_path / "pictures")


def dwpose_frame(k, f, style):
    """DWPose's dictionary of a frame; hands are those of all people, left ones first."""
    n = k.num_people
    hands = np.concatenate([k.hands[f, :, 0], k.hands[f, :, 1]])
    hands_score = np.concatenate([k.hands_score[f, :, 0], k.hands_score[f, :, 1]])
    bodies = {"candidate": k.body[f].reshape(-1, 2), "subset": np.where(k.body_score[f] > 0.3, 0.0, -1)}
    if style == "first":  # indices, and -1 for what was not found
        bodies["subset"] = np.where(k.body_score[f] > 0.3, np.arange(18 * n).reshape(n, 18), -1).astype(float)
        hands = np.where(hands_score[..., None] > 0.3, hands, -1)
        return {"bodies": bodies, "hands": hands, "faces": k.faces[f]}
    scores = {"hands_score": hands_score, "faces": k.faces[f], "faces_score": k.faces_score[f]}
    if style == "confidences":
        return {"bodies": {**bodies, "subset": k.body_score[f]}, "hands": hands, **scores}
    bodies["subset"] = np.arange(18.0 * n).reshape(n, 18)
    return {"bodies": {**bodies, "score": k.body_score[f]}, "hands": hands, **scores}


@pytest.mark.parametrize("suffix", ["npy", "pkl", "npz", "json"])
@pytest.mark.parametrize("style", ["first", "confidences", "scores"])
def test_dwposes_dictionaries(tmp_path, style, suffix):
    k = make_keypoints()
    if style != "first":
        for name in ("body", "faces", "hands"):
            scores = getattr(k, f"{name}_score")
            scores *= np.random.default_rng(0).uniform(0.4, 1.1, scores.shape).astype(np.float32)
    frames, path = [dwpose_frame(k, f, style) for f in range(k.num_frames)], tmp_path / f"k.{suffix}"
    if suffix == "npy":
        np.save(path, np.array(frames, dtype=object))
    elif suffix == "npz":
        np.savez(path, poses=np.array(frames, dtype=object))
    elif suffix == "pkl":
        content = {f"{f}.jpg": frame for f, frame in enumerate(frames)} if style == "first" else frames
        path.write_bytes(pickle.dumps(content, protocol={"first": 2, "confidences": 4, "scores": 5}[style]))
    else:
        path.write_text(json.dumps(frames, default=lambda array: array.tolist()))
    with pytest.raises(SizeMissingError):
        load_keypoints(path)
    assert_same(load_keypoints(path, WIDTH, HEIGHT, 30), k, pixels=1e-3, scores=1e-6)


def test_openposes_own_candidates_and_nobody(tmp_path):
    """Points of all people in any order, each person 18 indices into them, a total score and a count."""
    candidate = np.array([[0.5, 0.1, 0.9, 0], [0.4, 0.3, 0.8, 1], [0.7, 0.2, 0.9, 2]])
    subset = np.full((1, 20), -1.0)
    subset[0, [0, 4, 18, 19]] = 2, 1, 1.7, 2
    nobody = {"bodies": {"candidate": np.zeros((0, 2)), "subset": np.zeros((0, 18))}, "hands": [], "faces": []}
    frames = [{"bodies": {"candidate": candidate, "subset": subset}, "hands": [], "faces": []}, nobody]
    (tmp_path / "k.pkl").write_bytes(pickle.dumps(frames))
    k = load_keypoints(tmp_path / "k.pkl", WIDTH, HEIGHT)
    assert (k.num_frames, k.num_people) == (2, 1)
    np.testing.assert_allclose(k.body[0, 0, [Body.NOSE, Body.R_WRIST]], [[0.7, 0.2], [0.4, 0.3]], rtol=1e-6)
    assert k.body_score[0, 0].nonzero()[0].tolist() == [Body.NOSE, Body.R_WRIST]
    assert not k.body_score[1].any()


def coco(num_frames=3, num_people=2):
    rng = np.random.default_rng(3)
    points = rng.uniform(10, 470, (num_frames, num_people, 133, 2))
    scores = rng.uniform(0.4, 1, (num_frames, num_people, 133))
    return points, scores, Keypoints.from_coco(points, scores, WIDTH, HEIGHT, 30)


def instance(points, scores):
    return {"keypoints": points.tolist(), "keypoint_scores": scores.tolist(), "bbox": [[0, 0, 9, 9]], "bbox_score": 1.0}


def triples(points, scores):
    return np.concatenate([points, scores[..., None]], axis=-1)


def annotation(number, points, scores):
    t = triples(points, scores)
    parts = {"keypoints": t[:17], "foot_kpts": t[17:23], "face_kpts": t[23:91], "lefthand_kpts": t[91:112]}
    parts["righthand_kpts"] = t[112:]
    return {"image_id": number, "category_id": 1, "num_keypoints": 17} | {
        name: part.ravel().tolist() for name, part in parts.items()
    }


def in_openposes_order(points):
    """rtmlib's `to_openpose`: body with the neck, feet, face, left and right hand."""
    order = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    neck = points[..., [5, 6], :].mean(-2)
    body = np.stack([neck if i is None else points[..., i, :] for i in order], axis=-2)
    return np.concatenate([body, points[..., 17:, :]], axis=-2)


def frames_of(points, scores):
    return list(zip(points, scores, strict=True))


WHOLE_BODY = {
    "MMPose's video": lambda p, s: [
        {"frame_id": f, "instances": [instance(*x) for x in zip(*frame, strict=True)]}
        for f, frame in enumerate(frames_of(p, s))
    ],
    "MMPose's demo": lambda p, s: {
        "meta_info": {"dataset_name": "coco_wholebody", "num_keypoints": 133},
        "instance_info": [
            {"frame_id": f, "instances": [instance(*x) for x in zip(*frame, strict=True)]}
            for f, frame in enumerate(frames_of(p, s), start=1)
        ],
    },
    "rtmlib": lambda p, s: [{"keypoints": a.tolist(), "scores": b.tolist()} for a, b in frames_of(p, s)],
    "rtmlib in OpenPose's order": lambda p, s: {
        "width": WIDTH,
        "height": HEIGHT,
        "frames": [
            {
                "frame": f,
                "keypoints": in_openposes_order(a).tolist(),
                "scores": in_openposes_order(b[..., None])[..., 0].tolist(),
            }
            for f, (a, b) in enumerate(frames_of(p, s))
        ],
    },
    "results per person": lambda p, s: [
        {"image_id": f"{f}.jpg", "category_id": 1, "keypoints": triples(*x).ravel().tolist(), "score": 2.5}
        for f, frame in enumerate(frames_of(p, s), start=9)
        for x in zip(*frame, strict=True)
    ],
    "COCO-WholeBody's annotations": lambda p, s: {
        "images": [
            {"id": 70 - f, "file_name": f"{f + 9}.jpg", "width": WIDTH, "height": HEIGHT} for f in range(len(p))
        ],
        "annotations": [
            annotation(70 - f, *x) for f, frame in enumerate(frames_of(p, s)) for x in zip(*frame, strict=True)
        ],
    },
    "nested lists": lambda p, s: triples(p, s).tolist(),
}


@pytest.mark.parametrize("layout", WHOLE_BODY)
def test_whole_bodies(tmp_path, layout):
    points, scores, k = coco()
    (tmp_path / "k.json").write_text(json.dumps(WHOLE_BODY[layout](points, scores)))
    found = load_keypoints(tmp_path / "k.json", WIDTH, HEIGHT, 30)
    if "order" in layout:  # its necks have scores of their own
        found.body_score[..., Body.NECK] = 1
    assert_same(found, k, pixels=1e-2, scores=1e-5)


def test_arrays_of_whole_bodies(tmp_path):
    points, scores, k = coco()
    np.save(tmp_path / "k.npy", triples(points, scores))
    np.savez(tmp_path / "k.npz", keypoints=points, scores=scores)
    for name in ("k.npy", "k.npz"):
        assert_same(load_keypoints(tmp_path / name, WIDTH, HEIGHT, 30), k, pixels=1e-2, scores=1e-5)
    np.save(tmp_path / "one.npy", triples(points, scores)[:, 0])
    assert_same(load_keypoints(tmp_path / "one.npy", WIDTH, HEIGHT, 30), k.person(0), pixels=1e-2, scores=1e-5)


def test_mmposes_file_of_one_picture_and_frames_without_people(tmp_path):
    points, scores, k = coco(num_frames=3)
    listed = [instance(*x) for x in zip(points[0], scores[0], strict=True)]
    (tmp_path / "picture.json").write_text(json.dumps(listed))
    assert_same(load_keypoints(tmp_path / "picture.json", WIDTH, HEIGHT, 30), k[:1], pixels=1e-2, scores=1e-5)
    results = WHOLE_BODY["results per person"](points, scores)
    (tmp_path / "gap.json").write_text(json.dumps([result for result in results if result["image_id"] != "10.jpg"]))
    found = load_keypoints(tmp_path / "gap.json", WIDTH, HEIGHT, 30)
    assert found.num_frames == 3
    assert not found.body_score[1].any()
    np.testing.assert_allclose(found.body[2], k.body[2], atol=1e-5)


def landmark(point, **more):
    return {"x": float(point[0]), "y": float(point[1]), "z": 0.1, **more}


def mediapipe_frame(style, pose, hand, face):
    """One frame of a file; `left` is the person's own."""
    listed = {
        "pose": [landmark(p, visibility=0.9) for p in pose],
        "left_hand": [landmark(p) for p in hand],
        "right_hand": None,
        "face": [landmark(p) for p in face],
    }
    if style == "python":
        return {f"{part}_landmarks": points for part, points in listed.items()}
    if style == "javascript":
        names = {"pose": "poseLandmarks", "left_hand": "leftHandLandmarks", "right_hand": "rightHandLandmarks"}
        return {names.get(part, "faceLandmarks"): points for part, points in listed.items() if points}
    if style == "message":
        return {f"{part}_landmarks": points and {"landmark": points} for part, points in listed.items()}
    if style == "tasks":
        return {f"{part}_landmarks": [points] if points else [] for part, points in listed.items()}
    rows = {
        part: points and [[p["x"], p["y"], p["z"], p.get("visibility", 0)] for p in points]
        for part, points in listed.items()
    }
    return rows


@pytest.mark.parametrize("style", ["python", "javascript", "message", "tasks", "rows"])
def test_mediapipes_landmarks(tmp_path, style):
    rng = np.random.default_rng(5)
    pose, hand, face = rng.uniform(0.1, 0.9, (33, 2)), rng.uniform(0.1, 0.9, (21, 2)), rng.uniform(0.1, 0.9, (478, 2))
    frame = mediapipe_frame(style, pose, hand, face)
    empty = dict.fromkeys(frame)
    (tmp_path / "k.json").write_text(json.dumps({"fps": 25, "frames": [frame, empty, frame]}))
    with pytest.raises(SizeMissingError):
        load_keypoints(tmp_path / "k.json")
    k = load_keypoints(tmp_path / "k.json", WIDTH, HEIGHT)
    assert (k.num_frames, k.num_people, k.fps) == (3, 1, 25)
    # MediaPipe's numbering: 0 nose, 11 and 12 shoulders, 15 left wrist, 16 right wrist, 28 right ankle.
    np.testing.assert_allclose(
        k.body[2, 0, [0, 7, 4, 10, 1]], [*pose[[0, 15, 16, 28]], pose[[11, 12]].mean(0)], atol=1e-6
    )
    np.testing.assert_allclose(k.body_score[0, 0, 0], 0.9, atol=1e-6)
    np.testing.assert_allclose(k.hands[0, 0, 0], hand, atol=1e-6)
    assert k.hands_score[0, 0, 0].all()
    assert not k.hands_score[:, :, 1].any()
    np.testing.assert_allclose(k.faces[0, 0, [8, 30]], face[[152, 4]], atol=1e-6)  # chin, tip of the nose
    assert not (k.body_score[1].any())
    assert not (k.faces_score[1].any())


def test_landmarks_in_pixels_are_refused(tmp_path):
    pose = [landmark((300, 200), visibility=0.9)] * 33
    (tmp_path / "k.json").write_text(json.dumps([{"pose_landmarks": pose}]))
    with pytest.raises(InputError, match="its landmarks are in pixels"):
        load_keypoints(tmp_path / "k.json", WIDTH, HEIGHT)


def test_lines_of_json_and_sizes_beside_numbered_frames(tmp_path):
    k = make_keypoints()
    frames = people(k)
    (tmp_path / "k.jsonl").write_text("\n".join(json.dumps({"people": frame, **CANVAS}) for frame in frames))
    assert_same(load_keypoints(tmp_path / "k.jsonl", fps=30), k, pixels=1e-3, scores=1e-6)
    numbered = {str(number): {"people": frame} for number, frame in zip((2, 10, 100), frames, strict=True)}
    (tmp_path / "k.json").write_text(json.dumps({"fps": 30, **CANVAS, **dict(reversed(numbered.items()))}))
    assert_same(load_keypoints(tmp_path / "k.json"), k, pixels=1e-3, scores=1e-6)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-pickle-ran",)


def test_pickles_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("code", [Hostile()]), ("set", {1: collections.Counter("a")}), ("path", tmp_path)):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
        np.save(tmp_path / f"{name}.npy", np.array([content, None], dtype=object))
        for suffix in ("pkl", "npy"):
            with pytest.raises(
                InputError, match=rf"{name}\.{suffix} was refused and nothing in it was run: it asks for"
            ):
                load_keypoints(tmp_path / f"{name}.{suffix}")
    assert not (tmp_path / "hostile-pickle-ran").exists()


def nested_lists(depth):
    """Lists that hold one another twice: 2^depth numbers in a few bytes of pickle."""
    inner = [0.5, 0.5]
    for _ in range(depth):
        inner = [inner, inner]
    return inner


def promise(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def hostile_files(folder):
    sized = {"body": np.zeros((2, 1, 18, 2)), "body_score": np.zeros((2, 1, 18))}
    bomb = zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with bomb, bomb.open("body.npy", "w", force_zip64=True) as member:
        member.write(promise((2**23, 1, 18, 2)))
        for _ in range(20):
            member.write(bytes(2**20))
    # The directory says 20 GB: what an honest bomb of 20 MB says, without the time to make one.
    content = (folder / "bomb.npz").read_bytes()
    size = (20 * 2**20 + 128).to_bytes(4, "little")
    assert size in content[-300:]
    (folder / "bomb.npz").write_bytes(content[:-300] + content[-300:].replace(size, (2**32 - 2).to_bytes(4, "little")))
    with zipfile.ZipFile(folder / "promise.npz", "w") as archive:
        archive.writestr("body.npy", promise((10**9, 10, 18, 2)) + bytes(64))
    (folder / "promise.npy").write_bytes(promise((10**12, 133, 3)) + bytes(64))
    np.savez_compressed(
        folder / "crowd.npz",
        body=np.zeros((1, 10**6, 18, 2), np.float16),
        body_score=np.zeros((1, 10**6, 18), np.float16),
    )
    far = sized["body"].copy()
    far[1, 0, 3, 0] = 1e6
    np.savez(folder / "far.npz", body=far, body_score=np.ones((2, 1, 18)), width=64, height=64)
    body = [1e6, 5, 1] + [5, 5, 1] * 17
    for name, numbers in {
        "far": body,
        "nan": [float("nan"), 5, 1] * 18,
        "inf": [float("inf"), 5, 1, *body[3:]],
    }.items():
        (folder / f"{name}.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": numbers}], **CANVAS}))
    frames = [{"people": []}] * 10_000 + [{"people": [{}] * 10_000}]
    (folder / "padding.json").write_text(json.dumps({**CANVAS, "frames": frames}))
    (folder / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    (folder / "digits.json").write_text('{"width":' + "9" * 10_000 + ',"people":[]}')
    (folder / "deep.pkl").write_bytes(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")
    (folder / "shared.pkl").write_bytes(pickle.dumps(nested_lists(60)))
    (folder / "shape.pkl").write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I999999999\nI999\ntS'f8'\ntR."
    )
    (folder / "large.json").touch()
    os.truncate(folder / "large.json", 2**40)  # a hole


def test_hostile_files_are_refused_before_anything_is_expanded(tmp_path):
    hostile_files(tmp_path)
    tracemalloc.start()
    for path in sorted(tmp_path.iterdir()):
        tracemalloc.reset_peak()
        with pytest.raises(InputError) as caught:
            load_keypoints(path, fps=30)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 300e6, path.name
    tracemalloc.stop()
    for name, reason in {
        "bomb.npz": "expands to 4,096 MiB",
        "far.json": r"reach \(1e\+06, 5\)",
        "nan.json": "NaN",
    }.items():
        with pytest.raises(InputError, match=reason):
            load_keypoints(tmp_path / name)


def test_ours_in_pixels_of_a_tiny_picture(tmp_path):
    k = random_keypoints(1, 1, width=2, height=2)
    save_keypoints(k, tmp_path / "k.json")
    assert_same(load_keypoints(tmp_path / "k.json"), k, 1e-4, 1e-4)
