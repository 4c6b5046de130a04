"""Every kind of bad input ends in one sentence, through the script as its user runs it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax import InputError
from mimicmotion_jax.cli import evaluate
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion

ROOT = Path(__file__).resolve().parents[2]


def empty(tmp: Path, data: Path) -> list:
    (tmp / "nothing").mkdir()
    return ["--data", tmp / "nothing"]


def empty_sequence(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    (tmp / "data" / "c").mkdir()
    return ["--data", tmp / "data"]


def single_frame(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    (tmp / "data" / "c").mkdir()
    shutil.copy(data / "a" / "00000.png", tmp / "data" / "c")
    return ["--data", tmp / "data"]


def two_of_a_name(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    (tmp / "data" / "a.mp4").write_bytes(b"")
    return ["--data", tmp / "data"]


def missing_counterpart(tmp: Path, data: Path) -> list:
    shutil.copytree(data / "a", tmp / "videos" / "a")
    return ["--generated", tmp / "videos"]


def no_counterparts(tmp: Path, data: Path) -> list:
    (tmp / "videos").mkdir()
    return ["--generated", tmp / "videos"]


def wrong_poses(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    save_keypoints(demo_motion(4), tmp / "data" / "b.npz")
    return ["--data", tmp / "data"]


def wrong_background(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    np.savez(tmp / "data" / "a.foreground.npz", background=np.zeros((3, 3, 3), np.uint8))
    return ["--data", tmp / "data"]


def damaged_background(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    (tmp / "data" / "a.foreground.npz").write_bytes(b"PK\3\4 no more")
    return ["--data", tmp / "data"]


def damaged_frame(tmp: Path, data: Path) -> list:
    shutil.copytree(data / "a", tmp / "videos" / "a")
    shutil.copytree(data / "b", tmp / "videos" / "b")
    whole = (data / "b" / "00004.png").read_bytes()
    (tmp / "videos" / "b" / "00004.png").write_bytes(whole[: len(whole) // 2])
    return ["--generated", tmp / "videos"]


def unequal_frames(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "videos")
    Image.new("RGB", (32, 32)).save(tmp / "videos" / "a" / "00002.png")
    return ["--generated", tmp / "videos"]


CASES = {
    "no data": (lambda tmp, data: ["--data", tmp / "no"], "there is no folder"),
    "empty folder": (empty, "holds no sequences"),
    "empty sequence": (empty_sequence, "holds no pictures"),
    "single frame": (single_frame, "has a single frame"),
    "two of a name": (two_of_a_name, "are of one name"),
    "sequences of the protocol": (lambda tmp, data: ["--protocol", "tiktok"], "lacks 335, 336, 337, 338, 339, 340"),
    "unknown protocol": (lambda tmp, data: ["--protocol", "mine"], "choose tiktok, disco, synthetic"),
    "missing counterpart": (missing_counterpart, "holds no video for b"),
    "no counterparts": (no_counterparts, "holds no videos"),
    "no generated": (lambda tmp, data: ["--generated", tmp / "no"], "there is no folder"),
    "wrong poses": (wrong_poses, "holds 4 poses and"),
    "wrong background": (wrong_background, "not (3, 3, 3)"),
    "damaged background": (damaged_background, "no readable .npz"),
    "damaged frame": (damaged_frame, "00004.png is damaged"),
    "unequal frames": (unequal_frames, "00002.png is 32x32"),
    "missing weights": (lambda tmp, data: ["--i3d", tmp / "i3d.pt"], "there is no weight file"),
    "both": (lambda tmp, data: ["--checkpoint", tmp], "either --checkpoint DIR"),
    "useless option": (lambda tmp, data: ["seed=3"], "seed has no effect with --generated"),
    "unknown option": (lambda tmp, data: ["sed=3"], "did you mean 'seed'"),
    "output is input": (lambda tmp, data: ["--output", data / "results"], "which is an input"),
    "output is a file": (lambda tmp, data: ["--output", Path(__file__)], "is a file"),
}


def arguments(data: Path, output: Path, more: list) -> list[str]:
    common = ["--generated", data, "--data", data, "--protocol", "synthetic", "--output", output]
    return list(map(str, [*common, *more]))


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence(case, data, tmp_path, monkeypatch):
    make, message = CASES[case]
    command = ["evaluate.py", *arguments(data, tmp_path / "out", make(tmp_path, data))]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(InputError) as caught:
        evaluate.main()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "results.json").exists()


def test_no_checkpoint_there(data, tmp_path, monkeypatch):
    command = ["--checkpoint", tmp_path, "--data", data, "--protocol", "synthetic", "--output", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, command)])
    with pytest.raises(InputError, match=r"convert_weights\.py"):
        evaluate.main()


def test_a_refused_size_leaves_the_folder_to_other_protocols(data, tmp_path, monkeypatch):
    command = [
        "--checkpoint",
        ROOT / "mimicmotion_jax/weights/small",
        "--data",
        data,
        "--protocol",
        "synthetic",
        "width=100",
        "height=100",
    ]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, command), "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"videos of 100x100 cannot be generated"):
        evaluate.main()
    assert not (tmp_path / "out" / "protocol.json").exists()


def test_the_script_exits_with_2(data, tmp_path):
    command = [sys.executable, ROOT / "evaluate.py", *arguments(tmp_path / "no", tmp_path / "out", [])]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == f"error: there is no folder {tmp_path / 'no'}; check the path."
    assert run.stdout == ""
