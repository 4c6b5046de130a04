"""Faults while preparing: a broken video, a damaged cache, a full disk, a second run on the same output."""

import contextlib
import io
import itertools
import os
import resource
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from counted import SIZE, counted_keypoints, write_counted

from mimicmotion_jax.cli import prepare as command
from mimicmotion_jax.data import prepare as preparing
from mimicmotion_jax.data import record
from mimicmotion_jax.data.dataset import Records, read_info
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.record import PoseVideo
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.pose.options import DetectorOptions
from mimicmotion_jax.runtime.errors import InputError, run_script

JUNK = b"junk" * 1000


class Unreliable(VideoFolder):
    """A folder in which one video fails in an unexpected way as long as the file `broken` exists."""

    def __init__(self, videos: Path, broken: Path):
        super().__init__(videos)
        self.broken, self.opened = broken, videos.parent / "opened"

    def open(self, item):
        with self.opened.open("a") as file:
            file.write(f"{item.name}\n")
        if item.name == "b.mp4" and self.broken.exists():
            raise RuntimeError("the library met a surprise")
        return super().open(item)


def forged_npz() -> bytes:
    """Keypoints whose header promises 2^40 frames."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 18, 2)}
    )  # fmt: skip
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in ("body", "body_score"):
            file.writestr(f"{name}.npy", header.getvalue())
    return content.getvalue()


def test_a_broken_video_costs_only_itself(tmp_path):
    videos, output, broken = tmp_path / "videos", tmp_path / "out", tmp_path / "broken"
    for name, blue in (("a", 50), ("b", 100), ("c", 150), ("forged", 200)):
        write_counted(videos / f"{name}.mp4", 17, blue)
    (videos / "forged.npz").write_bytes(forged_npz())
    (videos / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(videos / "pipe.mp4")
    broken.touch()
    source = Unreliable(videos, broken)
    summary = prepare(source, output, PrepareConfig(), progress=False)
    assert [r.name for r in read_info(output).records] == ["a.mp4", "c.mp4"]
    assert summary.skipped.keys() == {"b.mp4", "dangling.mp4", "forged.mp4", "pipe.mp4"}
    assert "the library met a surprise" in summary.skipped["b.mp4"]
    assert "cannot be read" in summary.skipped["dangling.mp4"]
    log = (output / preparing.LOG).read_text()
    assert "b.mp4" in log
    assert "Traceback" in log
    assert "the library met a surprise" in log
    # An unexpected error is not remembered: only what it concerned is tried again, with success.
    broken.unlink()
    (videos / "forged.mp4").unlink()
    source.opened.unlink()
    summary = prepare(source, output, PrepareConfig(), progress=False)
    assert source.opened.read_text() == "b.mp4\n"
    assert [r.name for r in read_info(output).records] == ["a.mp4", "b.mp4", "c.mp4"]
    assert summary.skipped.keys() == {"dangling.mp4", "pipe.mp4"}
    assert not (output / preparing.LOG).exists()


def npz_of_something_else() -> bytes:
    content = io.BytesIO()
    np.savez(content, nothing=np.zeros(3))
    return content.getvalue()


def test_damaged_pieces_are_made_again(checkpoint, tmp_path):
    """Half of them, the others, then all: two parts, their encodings, and the two lists of them."""
    write_counted(tmp_path / "videos" / "a.mp4", 34)
    source, output = VideoFolder(tmp_path / "videos"), tmp_path / "out"
    config = PrepareConfig(max_seconds=0.6, encode=str(checkpoint), size=SIZE, batch_size=16)
    summary = prepare(source, output, config, progress=False)
    before = [dict(r.to_example()) for r in Records(output)]
    pieces = sorted((output / preparing.WORK).iterdir())
    assert [path.suffix for path in pieces].count(".npz") == 4
    assert len(pieces) == 6
    junk = itertools.cycle([b"junk" * 100, b"", b"[]", npz_of_something_else(), pieces[0].read_bytes()[:100]])
    for damaged in (pieces[::2], pieces[1::2], pieces):
        for path in damaged:
            path.write_bytes(next(junk))
        (output / "summary.json").unlink()
        assert prepare(source, output, config, progress=False) == summary
        after = [r.to_example() for r in Records(output)]
        assert len(after) == 2
        for ours, expected in zip(after, before, strict=True):
            for name in expected:
                np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)


class StubDetector:
    """Reports the same person in every frame, and counts the videos."""

    videos = 0

    def track(self, frames):
        StubDetector.videos += 1
        for _ in frames:
            yield np.random.default_rng(0).uniform(20, 90, (1, 133, 2)), np.full((1, 133), 0.9)


@pytest.mark.slow
def test_poses_are_detected_again_by_another_detector_or_when_damaged(tmp_path, monkeypatch):
    videos, output = tmp_path / "videos", tmp_path / "out"
    for name, blue in (("a", 50), ("b", 100)):
        write_counted(videos / f"{name}.mp4", 17, blue)
        (videos / f"{name}.npz").unlink()
    monkeypatch.setattr(StubDetector, "videos", 0)
    monkeypatch.setattr(DetectorOptions, "load_detector", lambda options: StubDetector())

    def detected(identity: str, crf: int = 18) -> int:
        before = StubDetector.videos
        monkeypatch.setattr(DetectorOptions, "identity", lambda options: identity)
        assert prepare(VideoFolder(videos), output, PrepareConfig(crf=crf), progress=False).prepared == 2
        return StubDetector.videos - before

    assert detected("one with the weights 1234") == 2
    assert detected("one with the weights 1234", crf=20) == 0  # poses are kept
    assert detected("one with the weights 5678", crf=20) == 2  # also where the options read the same
    poses = list((output / preparing.WORK).glob("*.poses.npz"))
    assert len(poses) == 4
    for path in poses:
        path.write_bytes(JUNK)
    assert detected("one with the weights 5678", crf=22) == 2
    write_counted(videos / "a.mp4", 17, 50)  # keypoints that come with a video need no detector
    assert detected("another one", crf=22) == 1


def test_a_second_run_on_the_same_output_is_told_so_at_once(tmp_path):
    write_counted(tmp_path / "videos" / "a.mp4", 17)
    listing, go_on = threading.Event(), threading.Event()

    class Slow(VideoFolder):
        def items(self, progress=True):
            listing.set()
            assert go_on.wait(60)
            return super().items(progress)

    summaries = []
    slow = Slow(tmp_path / "videos")
    first = threading.Thread(
        target=lambda: summaries.append(prepare(slow, tmp_path / "out", PrepareConfig(), progress=False))
    )
    first.start()
    assert listing.wait(60)
    with pytest.raises(InputError, match="is being written"):
        prepare(VideoFolder(tmp_path / "videos"), tmp_path / "out", PrepareConfig(), progress=False)
    go_on.set()
    first.join(60)
    assert [summary.prepared for summary in summaries] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "videos"]


@contextlib.contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """Let writing fail as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(tmp_path, capsys):
    for name, blue in (("a", 50), ("b", 100)):
        write_counted(tmp_path / "videos" / f"{name}.mp4", 17, blue)
    output = tmp_path / "out"
    arguments = ["--videos", str(tmp_path / "videos"), "--output", str(output)]
    main = run_script(lambda: command.main(arguments))
    # Below the size of a part, and between that and the size of a shard, which ArrayRecord's own writer writes.
    for limit, kept in ((1000, 0), (60_000, 2)):
        with no_file_larger_than(limit), pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "video/s" not in line and line]
        assert lines[-1].startswith(f"error: cannot write to {output}")
        assert "File too large" in lines[-1]
        assert all(line.startswith("writing ") or "assumed" in line or line.isspace() for line in lines[:-1])
        assert len(list((output / preparing.WORK).glob("*-0000.npz"))) == kept
        assert not (output / record.NAME).exists()
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert len(Records(output)) == 2
    assert not [path for path in output.rglob("*") if path.name.endswith(".tmp")]


def test_a_damaged_record_is_said_once(tmp_path):
    output = tmp_path / "out"
    write_counted(tmp_path / "videos" / "a.mp4", 17)
    prepare(VideoFolder(tmp_path / "videos"), output, PrepareConfig(), progress=False)
    records = Records(output)
    example = PoseVideo("a", "", b"", counted_keypoints(3)).to_example()
    for damage in ({"num_frames": 4}, {"width": 0}, {"body": np.zeros((3, 17, 2))}):
        records._source = [example | damage]
        with pytest.raises(InputError) as caught:
            records[0]
        assert str(caught.value).replace(str(output), "").count("damaged") == 1
