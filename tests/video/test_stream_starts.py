"""Recordings that begin in the middle of a stream: from the first whole picture on, with its sound."""

import numpy as np
import pytest
from ffmpeg_binary import ffmpeg
from video_clips import click_track, ramp, ramp_index, write_clip

from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

CODECS = {
    "h264": ("-c:v", "libx264", "-g", "30"),
    "h264 open": ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=25:min-keyint=25:scenecut=0"),
    "h264 refresh": ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=15"),
    "hevc": ("-c:v", "libx265", "-x265-params", "open-gop=1:keyint=25:min-keyint=25:scenecut=0:log-level=none"),
    "mpeg2": ("-c:v", "mpeg2video", "-g", "12", "-bf", "2", "-b:v", "3M"),
    "mpeg4": ("-c:v", "mpeg4", "-g", "30", "-bf", "2", "-b:v", "3M"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """75 frames in three seconds, whose levels tell their number, and a click at 0.5, 1.5 and 2.5 seconds."""
    path = tmp_path_factory.mktemp("clips") / "a.mkv"
    return write_clip(
        path, ramp(75), container="matroska", options={}, sound=click_track(3, 48_000), sound_codec="flac"
    )


def encoded(clip, codec, path):
    ffmpeg("-i", clip, *CODECS[codec], "-pix_fmt", "yuv420p", "-c:a", "aac", path)
    return path


def check_begins_at_a_whole_picture(path, tmp_path, expect_lost=True):
    with collect_assumptions() as lines:
        reader = open_video(path)
    found = [ramp_index(frame) for frame in reader.frames()]
    assert found == list(range(found[0], 75))
    assert len(found) == reader.num_frames
    starts = [line for line in lines if "begins in the middle of a stream" in line]
    assert len(starts) == expect_lost
    # The sound: the click at 2.5 s is heard with picture 62.5.
    with open_writer(tmp_path / "out.mp4", 25, 128, 96, audio_from=path, overwrite=True) as writer:
        for frame in reader.frames():
            writer.write(frame)
    samples = np.frombuffer(
        ffmpeg("-i", tmp_path / "out.mp4", "-ac", "1", "-ar", "48000", "-f", "f32le", "-"), np.float32
    )
    loud = np.flatnonzero(np.abs(samples) > 0.2) / 48_000
    clicks = loud[np.diff(loud, prepend=-1) > 0.2]
    assert clicks[-1] == pytest.approx((62.5 - found[0]) / 25, abs=0.012)
    return found[0]


@pytest.mark.parametrize("codec", CODECS)
def test_a_transport_stream_cut_anywhere(tmp_path, clip, codec):
    data = encoded(clip, codec, tmp_path / "whole.ts").read_bytes()
    for part in (0.15, 0.3, 0.47):
        (tmp_path / "cut.ts").write_bytes(data[round(part * len(data)) :])
        first = check_begins_at_a_whole_picture(tmp_path / "cut.ts", tmp_path)
        assert 0 < first <= 62


@pytest.mark.parametrize("codec", ["hevc", "h264"])
def test_a_recording_cut_without_encoding(tmp_path, clip, codec):
    whole = encoded(clip, codec, tmp_path / "whole.mp4")
    for container in ("mkv", "mp4", "ts"):
        cut = tmp_path / f"cut.{container}"
        ffmpeg("-ss", "1.2", "-i", whole, "-c", "copy", cut)
        # A group of pictures of HEVC may begin with some that belong to the one before; MP4 hides them itself.
        lost = codec == "hevc" and container != "mp4"
        check_begins_at_a_whole_picture(cut, tmp_path, expect_lost=lost)
