"""Preparing: stored records, skipped videos with reasons, reruns after an interruption, and the builder on Beam."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds
from counted import HEIGHT, WIDTH, counted_frames, counted_keypoints, number_of, write_counted

from mimicmotion_jax.data import prepare as preparing
from mimicmotion_jax.data import record
from mimicmotion_jax.data.builder import PoseVideos, build
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.data.codec import encode_video
from mimicmotion_jax.data.dataset import Records, read_info
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.record import PoseVideo
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS
from mimicmotion_jax.runtime.errors import InputError

ROOT = Path(__file__).parents[2]


def test_records_hold_the_videos(dataset, checkpoint):
    info = read_info(dataset)
    assert [r.name for r in info.records] == ["a.mp4", "below/b.mp4", "c.mp4[0:30]", "c.mp4[30:60]"]
    assert info.encodings.checkpoint == hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    last = Records(dataset)[3]
    assert (last.keypoints.width, last.keypoints.height, last.keypoints.fps) == (WIDTH, HEIGHT, 30)
    assert [number_of(frame) for frame in last.frames(range(30))] == list(range(30, 60))
    expected = counted_keypoints(60)[30:]
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(last.keypoints, name), getattr(expected, name))
    assert last.latents.shape == (30, 8, 16, 4)
    assert last.latents.dtype == last.embeddings.dtype == np.float16


def test_skipped_videos_have_a_reason(prepared):
    output, summary = prepared
    assert json.loads((output / "summary.json").read_text()) == dataclasses.asdict(summary)
    assert (summary.prepared, summary.records, summary.frames, summary.seconds) == (3, 4, 120, 4.0)
    reasons = {
        "short.mp4": "5 frames",
        "other.mp4": "keypoints of 19 frames, but the video has 20",
        "nobody.mp4": "nobody was found",
        "text.mp4": "not a video",
        "twin.mp4": "the same as a.mp4",
    }
    assert summary.skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in summary.skipped[name]
    assert str(summary).startswith("prepared 3 videos (120 frames, 0.1 minutes), 5 skipped:\n")


class Opened(VideoFolder):
    """Folder that notes opened videos, and kills the process at one of them."""

    def __init__(self, videos: Path, note: Path, deadly: str = ""):
        super().__init__(videos)
        self.note, self.deadly = note, deadly

    def open(self, item):
        if item.name == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        with self.note.open("a") as file:
            file.write(f"{item.name}\n")
        return super().open(item)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_new_videos_are_added(tmp_path):
    videos, output, note = tmp_path / "videos", tmp_path / "out", tmp_path / "note"
    for name in ("a", "b"):
        write_counted(videos / f"{name}.mp4", 20, blue=ord(name))
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\nfrom test_prepare import Opened, PrepareConfig, prepare\n"
        f"prepare(Opened(Path({str(videos)!r}), Path({str(note)!r}), 'b.mp4'), {str(output)!r}, PrepareConfig())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert note.read_text().split() == ["a.mp4"]
    assert not (output / record.NAME).exists()
    with pytest.raises(InputError, match="no dataset"):
        read_info(output)

    def again() -> list[str]:
        """Prepare again and return the names of the videos that were opened."""
        note.write_text("")
        prepare(Opened(videos, note), output, PrepareConfig(), progress=False)
        return note.read_text().split()

    assert again() == ["b.mp4"]
    assert [r.name for r in read_info(output).records] == ["a.mp4", "b.mp4"]
    files = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert again() == []
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == files
    write_counted(videos / "c.mp4", 25, blue=200)
    assert again() == ["c.mp4"]
    assert [(r.name, r.num_frames) for r in read_info(output).records] == [("a.mp4", 20), ("b.mp4", 20), ("c.mp4", 25)]
    assert len(list(Records(output))) == 3
    with pytest.raises(InputError, match="encode="):
        ClipLoader(DataConfig(dataset=str(output), num_frames=2, encodings=True), 1, 0)
    shutil.rmtree(output / preparing.WORK)  # a finished dataset does not need it
    assert again() == []
    (output / record.NAME).rename(output / f".{record.NAME}.mimicmotion-earlier")  # killed while it was being replaced
    assert again() == []
    assert len(list(Records(output))) == 3
    summary = output / "summary.json"
    whole = summary.read_bytes()
    for damaged in (bytes(len(whole)), b'{"prepared": 3}'):
        summary.write_bytes(damaged)
        assert sorted(again()) == ["a.mp4", "b.mp4", "c.mp4"]
        shutil.rmtree(output / preparing.WORK)
        assert summary.read_bytes() == whole


def test_nothing_usable_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        VideoFolder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no videos"):
        prepare(VideoFolder(tmp_path), tmp_path / "out", PrepareConfig(), progress=False)
    write_counted(tmp_path / "videos" / "a.mp4", 5)
    with pytest.raises(InputError, match=r"none of the 1 videos can be used; a\.mp4: it has 5 frames"):
        prepare(VideoFolder(tmp_path / "videos"), tmp_path / "out", PrepareConfig(), progress=False)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["prepared"] == 0
    with pytest.raises(InputError, match="key=value"):
        prepare(VideoFolder(tmp_path / "videos"), tmp_path / "new", PrepareConfig(), ["DataflowRunner"])
    with pytest.raises(InputError, match="no runner 'Nothing'"):
        prepare(VideoFolder(tmp_path / "videos"), tmp_path / "new", PrepareConfig(), ["runner=Nothing"], False)


def test_keypoints_are_found_in_all_their_forms(tmp_path):
    videos, poses = tmp_path / "videos", tmp_path / "poses"
    write_counted(videos / "a.mp4", 17)
    (videos / "a.npz").unlink()
    item = VideoFolder(videos).items(progress=False)[0]
    assert not item.has_keypoints
    expected = counted_keypoints(17)
    larger = dataclasses.replace(expected, width=2 * WIDTH, height=2 * HEIGHT)

    def check(source: VideoFolder) -> None:
        found = source.items(progress=False)[0]
        assert found.content != item.content
        with source.open(found) as video:
            assert (video.keypoints.width, video.keypoints.height) == (WIDTH, HEIGHT)
            np.testing.assert_allclose(video.keypoints.hands, expected.hands, atol=1e-5)

    save_keypoints(larger, videos / "a.json")  # in pixels of its own size
    check(VideoFolder(videos))
    folder = poses / "a"
    folder.mkdir(parents=True)
    save_keypoints(expected, tmp_path / "whole.json")
    for number, frame in enumerate(json.loads((tmp_path / "whole.json").read_text())["frames"]):
        (folder / f"a_{number:05d}_keypoints.json").write_text(json.dumps({"version": 1.3, **frame}))
    check(VideoFolder(videos, poses))
    save_keypoints(expected, poses / "a.npz")
    check(VideoFolder(videos, poses))


def test_frames_are_stored_no_larger_than_asked(tmp_path):
    write_counted(tmp_path / "videos" / "a.mp4", 18)
    prepare(VideoFolder(tmp_path / "videos"), tmp_path / "out", PrepareConfig(resolution=64), progress=False)
    (stored,) = Records(tmp_path / "out")
    assert (stored.keypoints.width, stored.keypoints.height) == (106, 64)  # 160 * 64 / 96, even
    assert stored.frames([17]).shape == (1, 64, 106, 3)
    assert number_of(stored.frames([17])[0]) == 17


def _example(number: int) -> dict:
    keypoints = counted_keypoints(1 + number)
    video = encode_video(counted_frames(1 + number), Fraction(30), 30)
    return PoseVideo(f"video {number}", "", video, keypoints).to_example()


@pytest.mark.parametrize("beam", [False, True])
def test_shards_of_unequal_length_keep_their_order(tmp_path, beam):
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    shards = [[0, 1], *([number] for number in range(2, 11)), [11, 12, 13], [14]]  # 12 of them: "10" < "2"
    builder = PoseVideos(
        data_dir=str(tmp_path), shards=shards, read=_example, features=record.features(), metadata={"records": []}
    )
    build(builder, [len(shard) for shard in shards], FnApiRunner() if beam else None, None)
    source = tfds.builder_from_directory(builder.data_path).as_data_source(split="train")
    records = [PoseVideo.from_example(example) for example in source]
    assert [r.name for r in records] == [f"video {number}" for number in range(15)]
    assert [r.num_frames for r in records] == list(range(1, 16))
    assert "tensorflow" not in sys.modules


def test_av_agrees_on_the_stored_video(dataset):
    """A record's video is an ordinary MP4 file."""
    with av.open(io.BytesIO(Records(dataset)[1].video)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) == 40
