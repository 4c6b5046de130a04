"""A sequence that fails is left out with its reason, and the results of the others are what they are without it."""

import json
import shutil
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax import InputError
from mimicmotion_jax.cli import evaluate
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.videos import VideoMaker
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.video.encode import open_writer


def folder_without_pictures(data: Path, name: str) -> None:
    (data / name).mkdir()


def single_frame(data: Path, name: str) -> None:
    (data / name).mkdir()
    shutil.copy(data / "a" / "00000.png", data / name)


def dangling_folder(data: Path, name: str) -> None:
    (data / name).symlink_to(data / "nowhere")


def dangling_video(data: Path, name: str) -> None:
    (data / f"{name}.mp4").symlink_to(data / "nowhere.mp4")


def empty_video(data: Path, name: str) -> None:
    (data / f"{name}.mp4").write_bytes(b"")


def cut_video(data: Path, name: str) -> None:
    with open_writer(data / f"{name}.mp4", 12, 48, 64) as writer:
        writer.write(np.random.default_rng(0).integers(0, 256, (11, 64, 48, 3), np.uint8))
    whole = (data / f"{name}.mp4").read_bytes()
    (data / f"{name}.mp4").write_bytes(whole[: len(whole) // 2])


def damaged_frame(data: Path, name: str) -> None:
    shutil.copytree(data / "a", data / name)
    whole = (data / name / "00004.png").read_bytes()
    (data / name / "00004.png").write_bytes(whole[: len(whole) // 2])


def dangling_frame(data: Path, name: str) -> None:
    """A link that leads nowhere must not shift the frames after it."""
    shutil.copytree(data / "a", data / name)
    (data / name / "00004.png").unlink()
    (data / name / "00004.png").symlink_to(data / "nowhere.png")


def unequal_frames(data: Path, name: str) -> None:
    shutil.copytree(data / "a", data / name)
    Image.new("RGB", (32, 32)).save(data / name / "00002.png")


def wrong_number_of_poses(data: Path, name: str) -> None:
    shutil.copytree(data / "a", data / name)
    save_keypoints(demo_motion(4), data / f"{name}.npz")


def dangling_poses(data: Path, name: str) -> None:
    shutil.copytree(data / "a", data / name)
    (data / f"{name}.npz").symlink_to(data / "nowhere.npz")


def forged_background(data: Path, name: str) -> None:
    """A header that promises an array of many terabytes: NumPy raises MemoryError."""
    shutil.copytree(data / "a", data / name)
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1)))
    header["shape"] = (1 << 45, 1)
    with zipfile.ZipFile(data / f"{name}.foreground.npz", "w") as archive, archive.open("background.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)


def wrong_background(data: Path, name: str) -> None:
    shutil.copytree(data / "a", data / name)
    np.savez(data / f"{name}.foreground.npz", background=np.zeros((3, 3, 3), np.uint8))


def damaged_background(data: Path, name: str) -> None:
    shutil.copytree(data / "a", data / name)
    (data / f"{name}.foreground.npz").write_bytes(b"PK\3\4 no more")


FAULTS = {
    "folder_without_pictures": (folder_without_pictures, "no pictures"),
    "single_frame": (single_frame, "single frame"),
    "dangling_folder": (dangling_folder, "dangling_folder"),
    "dangling_video": (dangling_video, "dangling_video.mp4"),
    "empty_video": (empty_video, "empty"),
    "cut_video": (cut_video, "cut_video.mp4"),
    "damaged_frame": (damaged_frame, "00004.png"),
    "dangling_frame": (dangling_frame, "00004.png"),
    "unequal_frames": (unequal_frames, "32x32"),
    "wrong_number_of_poses": (wrong_number_of_poses, "4 poses"),
    "dangling_poses": (dangling_poses, "dangling_poses.npz"),
    "forged_background": (forged_background, "MemoryError"),
    "wrong_background": (wrong_background, "(3, 3, 3)"),
    "damaged_background": (damaged_background, "not a readable .npz"),
}


@pytest.fixture
def broken(data, tmp_path) -> Path:
    """The two good sequences and one of each fault."""
    folder = tmp_path / "broken"
    shutil.copytree(data, folder)
    for name, (make, _) in FAULTS.items():
        make(folder, name)
    return folder


def test_each_fault_leaves_out_its_sequence_alone(broken, data, tmp_path, score):
    results = score(broken, broken, tmp_path / "out")
    for name, (_, reason) in FAULTS.items():
        assert reason in results["left_out"][name]
    assert results["left_out"].keys() == FAULTS.keys()
    expected = score(data, data, tmp_path / "good")
    for key in ("summary", "frame_difference", "psnr_above_repeat", "sequences"):
        assert results[key] == expected[key]
    page = (tmp_path / "out" / "index.html").read_text()
    log = (tmp_path / "out" / "errors.log").read_text()
    for name in FAULTS:
        assert f"sequence {name} is left out" in page
        assert f"sequence {name}: " in log
    assert log.count("Traceback (most recent call last)") >= len(FAULTS)
    assert expected["left_out"] == {}
    assert not (tmp_path / "good" / "errors.log").exists()


def test_a_broken_generated_video_is_left_out_too(data, tmp_path, capsys):
    videos = tmp_path / "videos"
    shutil.copytree(data, videos)
    (videos / "b" / "00004.png").write_bytes(b"not a picture")
    command = ["--generated", videos, "--data", data, "--protocol", "synthetic", "--output", tmp_path / "out"]
    assert evaluate.main([*map(str, command)]) == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["name"] for row in results["sequences"]] == ["a"]
    assert "00004.png" in results["left_out"]["b"]
    assert "left out: b" in capsys.readouterr().err


def test_without_any_sequence_left_there_are_no_results(data, tmp_path, score):
    shutil.copytree(data, tmp_path / "data")
    for name in "ab":
        np.savez(tmp_path / "data" / f"{name}.foreground.npz", background=np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="every sequence failed, the first one, a, because: "):
        score(tmp_path / "data", tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_bug_in_every_sequence_keeps_its_traceback(tmp_path):
    failures = Failures(tmp_path / "log")
    items = [types.SimpleNamespace(name=name) for name in "ab"]
    for item in items:
        with failures.leave_out(item.name):
            raise KeyError(f"bug in {item.name}")
    with pytest.raises(KeyError, match="bug in a"):
        failures.remaining(items)


class FailingModel:
    """Stands in for a checkpoint: fails on sequence b, as a device without memory for it does."""

    weights_sha256, dtype, pipeline = "0", None, None

    def __init__(self):
        self.batches = []

    def generate(self, tasks, paths, config, progress):
        self.batches.append([task.name for task in tasks])
        if "b" in self.batches[-1]:
            raise MemoryError("no room for b")
        for path in paths:
            path.mkdir(parents=True)


def test_a_failing_batch_is_generated_one_by_one(tmp_path):
    tasks = [types.SimpleNamespace(name=n, num_frames=2, size=(64, 48), sha256=lambda: "0") for n in "abc"]
    failures, model = Failures(tmp_path / "log"), FailingModel()
    VideoMaker(model, EvaluateConfig(batch_size=2), tmp_path, failures, progress=False).generate(tasks)
    assert model.batches == [["a", "b"], ["a"], ["b"], ["c"]]
    assert failures.reasons == {"b": "MemoryError: no room for b."}
    assert [task.name for task in failures.remaining(tasks)] == ["a", "c"]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["a", "a.json", "c", "c.json"]
