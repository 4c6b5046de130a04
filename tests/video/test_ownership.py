"""Results that this software wrote are told from other files; nobody's files and no live writer's work is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from object_store import ObjectStore
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from video_clips import ramp, write_clip

from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import check_writable, is_written, open_writer
from mimicmotion_jax.video.provenance import check_replaceable, is_ours, provenance, read_provenance

ROOT = Path(__file__).resolve().parents[2]


def write(path, num_frames: int = 2, **settings) -> None:
    with open_writer(path, 15, 64, 48, progress=False, **settings) as writer:
        writer.write(ramp(num_frames, 48, 64))


def picture(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(ramp(1)[0]).save(path)


def ours_and_one_more(path: Path) -> None:
    write(path)
    picture(path / "00007.png")


def of_another_program(path: Path) -> None:
    path.mkdir()
    info = PngInfo()
    info.add_text("Comment", '{"software": 5}')
    Image.new("RGB", (16, 16)).save(path / "0.png", pnginfo=info)


FOREIGN = {
    "clip.mp4": lambda path: write_clip(path, ramp(3)),
    "text.mp4": lambda path: path.write_text("my notes"),
    "empty.mp4": lambda path: path.touch(),
    "a.gif": picture,
    "mine": lambda path: picture(path / "0001.png"),
    "mixed": ours_and_one_more,
    "other": of_another_program,
    "broken": lambda path: (path.mkdir(), (path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_users_file_is_neither_a_result_nor_replaced(tmp_path, name):
    path = tmp_path / name
    FOREIGN[name](path)
    before = contents(tmp_path)
    assert not is_written(path)
    for use in (check_writable, write):
        with pytest.raises(InputError, match=r"not a file that mimicmotion wrote.*--overwrite"):
            use(path)
    assert contents(tmp_path) == before

    check_writable(path, overwrite=True)
    write(path, overwrite=True)
    assert is_written(path)
    assert open_video(path, 15).num_frames == 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_during_the_work_is_not_replaced(tmp_path):
    def work():
        with open_writer(tmp_path / "a.mp4", 15, 64, 48) as writer:
            writer.write(ramp(2, 48, 64))
            (tmp_path / "a.mp4").write_text("my notes")

    with pytest.raises(InputError, match="mimicmotion wrote"):
        work()
    assert contents(tmp_path) == {tmp_path / "a.mp4": b"my notes"}


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
@pytest.mark.parametrize("metadata", [None, provenance(7, {})])
def test_an_earlier_result_is_replaced(tmp_path, name, metadata):
    for num_frames in (3, 2):
        write(tmp_path / name, num_frames, metadata=metadata)
        assert is_written(tmp_path / name)
        assert open_video(tmp_path / name, 15).num_frames == num_frames


def test_keypoints_that_are_a_result_say_so(tmp_path):
    nobody = Keypoints.from_coco(np.zeros((2, 1, 133, 2)), np.zeros((2, 1, 133)), width=64, height=48, fps=15)
    save_keypoints(nobody, tmp_path / "mine.npz")
    assert not is_ours(tmp_path / "mine.npz")
    with pytest.raises(InputError, match="mimicmotion wrote"):
        check_replaceable(tmp_path / "mine.npz")
    check_replaceable(tmp_path / "mine.npz", overwrite=True)
    check_replaceable(tmp_path / "missing.npz")
    save_keypoints(nobody, tmp_path / "result.npz", metadata=provenance(7, {}))
    check_replaceable(tmp_path / "result.npz")
    assert read_provenance(tmp_path / "result.npz")["seed"] == "7"
    assert load_keypoints(tmp_path / "result.npz").num_frames == 2
    for content in (b"", b"text", (tmp_path / "result.npz").read_bytes()[:300]):
        (tmp_path / "damaged.npz").write_bytes(content)
        assert not is_ours(tmp_path / "damaged.npz")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_the_second_writer_of_an_output_fails_at_once(tmp_path, name):
    with open_writer(tmp_path / name, 15, 64, 48, progress=False) as writer:
        writer.write(ramp(1, 48, 64))
        for use in (check_writable, lambda path: open_writer(path, 15, 64, 48)):
            with pytest.raises(InputError, match="being written already"):
                use(tmp_path / name)
        writer.write(ramp(2, 48, 64))
    assert open_video(tmp_path / name, 15).num_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_writers_of_similar_names_do_not_disturb_each_other(tmp_path):
    names = ["take.1/%03d.png", "take", "take.mp4", "take.mp4.gif", "take.1.mp4"]
    users = [
        ".take.mp4.notes.part",
        ".take.mp4.0badcafe.part",
        ".take.removed",
        ".take.earlier",
        ".take.mp4.unfinished",
    ]
    for name in users:
        (tmp_path / name).write_text("mine")
    writers = [open_writer(tmp_path / name, 15, 64, 48, progress=False) for name in names]
    with writers[0] as a, writers[1] as b, writers[2] as c, writers[3] as d, writers[4] as e:
        for writer in (a, b, c, d, e, a):
            writer.write(ramp(1, 48, 64))
    assert all(is_written(tmp_path / name) for name in names)
    assert open_video(tmp_path / "take.1", 15).num_frames == 2
    results = {"take.1", *names[1:]}
    assert {path.name for path in tmp_path.iterdir()} == {*results, *users}


LIVE = """
import sys, time
import numpy as np
from mimicmotion_jax.video.encode import open_writer
a, b = (open_writer(path, 15, 64, 48, progress=False) for path in sys.argv[1:])
with a as first, b as second:
    for writer in (first, second):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    print("writing", flush=True)
    time.sleep(600)
"""


def test_a_live_process_is_left_alone_and_a_dead_ones_remains_go(tmp_path):
    paths = [tmp_path / "a.gif", tmp_path / "frames"]
    with subprocess.Popen([sys.executable, "-c", LIVE, *paths], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writing\n"
        before = contents(tmp_path)
        assert before
        for path in paths:
            with pytest.raises(InputError, match="being written already"):
                write(path)
        assert contents(tmp_path).keys() == before.keys()
        other.kill()
    assert contents(tmp_path)
    for path in paths:
        write(path)
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames", "frames/%03d.png"])
def test_remote_outputs(bucket, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = f"{bucket}/{name}"
    assert not is_written(target)
    check_writable(target)
    with pytest.raises(InputError, match="no frame"), open_writer(target, 15, 64, 48, progress=False):
        pass
    assert not ObjectStore.store
    for num_frames in (3, 2):
        write(target, num_frames, metadata=provenance(7, {}))
        assert is_written(target)
    place = epath.Path(bucket) / name.split("/")[0]
    assert read_provenance(place)["seed"] == "7"
    local = tmp_path / place.name
    for file in place.iterdir() if place.is_dir() else [place]:
        copy = local / file.name if place.is_dir() else local
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    assert open_video(local, 15).num_frames == 2
    assert len(ObjectStore.store) == (2 if place.is_dir() else 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [local.name]


def test_a_remote_file_of_the_users_stays(bucket, tmp_path):
    picture(tmp_path / "0001.png")
    for name, content in {"a.mp4": b"text", "frames/0001.png": (tmp_path / "0001.png").read_bytes()}.items():
        (epath.Path(bucket) / name).parent.mkdir(parents=True, exist_ok=True)
        (epath.Path(bucket) / name).write_bytes(content)
        target = f"{bucket}/{name.split('/')[0]}"
        assert not is_written(target)
        with pytest.raises(InputError, match="mimicmotion wrote"):
            write(target)
        assert (epath.Path(bucket) / name).read_bytes() == content
        write(target, overwrite=True)
        assert is_written(target)


def test_half_an_uploaded_folder_is_no_result(bucket, monkeypatch):
    target = f"{bucket}/frames"
    write(target, 4)
    monkeypatch.setattr(ObjectStore, "broken", ("00001.png",))
    with pytest.raises(InputError, match="the network is gone"):
        write(target, 4)
    assert ObjectStore.store
    assert not is_written(target)
    monkeypatch.setattr(ObjectStore, "broken", ())
    write(target, 3)
    assert is_written(target)
    assert len(ObjectStore.store) == 3


def test_a_full_local_disk_is_noticed_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(InputError, match="only 1 MiB are free"):
        check_writable(tmp_path / "a.mp4")
