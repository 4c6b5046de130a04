"""Orientation and time of what phones and screen recorders write, against FFmpeg's own command."""

from fractions import Fraction

import numpy as np
import pytest
from ffmpeg_binary import ffmpeg, ffmpeg_frames
from PIL import Image
from video_clips import ramp, ramp_index, write_clip

from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.frame_rate import dense_rate


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory):
    """A picture that looks different however it is turned or mirrored."""
    stored = ramp(3)
    stored[:, :24, :32] = (255, 0, 0)
    stored[:, -24:, :64] = (0, 0, 255)
    return write_clip(tmp_path_factory.mktemp("clips") / "base.mp4", stored)


# The command's options set the whole display matrix; -90 is what a phone held upright writes.
@pytest.mark.parametrize("flip", ["", "hflip", "vflip", "hflip vflip"])
@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_the_whole_display_matrix_is_applied(tmp_path, lopsided, turn, flip):
    path = tmp_path / "turned.mov"
    flips = [f"-display_{name}" for name in flip.split()]
    ffmpeg("-display_rotation", turn, *flips, "-i", lopsided, "-c", "copy", path)
    check_orientation(path, (96, 128) if abs(turn) == 90 else (128, 96))


def test_another_angle_turns_the_picture_within_its_frame(tmp_path, lopsided):
    ffmpeg("-display_rotation", 30, "-i", lopsided, "-c", "copy", tmp_path / "turned.mp4")
    check_orientation(tmp_path / "turned.mp4", (128, 96), most=4)


def check_orientation(path, size, most=2.0):
    reader = open_video(path)
    assert (reader.width, reader.height) == size
    shown = np.stack(list(reader.frames())).astype(int)
    expected = ffmpeg_frames(path, reader.width, reader.height)
    assert shown.shape == expected.shape
    # Not exactly: the colour planes have half the size, and are turned before they are enlarged.
    assert np.abs(shown - expected).mean() < most


def check_grid(path, milliseconds, rate):
    """Frame k must show the picture that is on screen in the middle of its time; the report says so in one line."""
    with collect_assumptions() as lines:
        reader = open_video(path)
    assert not reader.constant_rate
    assert reader.fps == pytest.approx(float(rate), rel=0.0011)  # milliseconds do not tell 30 from 29.97
    middles = 1000 * (np.arange(reader.num_frames) + 0.5) / reader.fps
    expected = (np.searchsorted(milliseconds, middles, side="right") - 1).tolist()
    assert [ramp_index(frame) for frame in reader.frames()] == expected
    (line,) = (line for line in lines if "variable frame rate" in line)
    assert f"a grid of {reader.fps:g} frames per second, {reader.num_frames} frames" in line
    return expected


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
@pytest.mark.parametrize(
    ("rate", "pauses"),
    [(30, {0: 4}), (25, {10: 2, 11: 0.5, 30: 1.3}), (Fraction(30000, 1001), {20: 3}), (50, {5: 0.7, 38: 6})],
)
def test_a_recording_with_pauses_keeps_every_picture(tmp_path, rate, pauses, container):
    """`pauses`: seconds by which a picture stays longer than its turn."""
    late = np.cumsum([0.0] + [pauses.get(index, 0.0) for index in range(39)])
    milliseconds = np.round(1000 * (np.arange(40) / float(rate) + late)).astype(int).tolist()
    path = write_clip(tmp_path / "a.bin", ramp(40), milliseconds=milliseconds, container=container)
    shown = check_grid(path, milliseconds, rate)
    assert sorted(set(shown)) == list(range(40))
    for index, seconds in pauses.items():
        assert shown.count(index) == pytest.approx(1 + seconds * float(rate), abs=1)


def test_a_screen_recording_made_by_ffmpeg(tmp_path):
    """A picture, a pause of four seconds, and the rest at full rate: all of them on a grid of 30 frames a second."""
    moved = "setpts='if(gte(N,1),PTS+4/TB,PTS)'"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=size=64x64:rate=30:duration=2", "-vf", moved),
        *("-fps_mode", "vfr", "-enc_time_base", "1:90000", tmp_path / "rec.mp4"),
    )
    reader = open_video(tmp_path / "rec.mp4")
    assert (reader.rate, reader.num_frames) == (30, 180)
    shown, stored = list(reader.frames()), ffmpeg_frames(tmp_path / "rec.mp4", 64, 64)
    assert len(stored) == 60
    for frame, expected in zip(shown, [stored[0]] * 121 + list(stored[1:]), strict=True):
        assert np.abs(frame.astype(int) - expected).max() <= 2


def test_the_last_picture_is_held_too(tmp_path):
    pictures = [Image.new("RGB", (64, 48), (12 * index, 0, 0)) for index in range(10)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100] * 9 + [2000])
    reader = open_video(tmp_path / "a.gif")
    assert (reader.rate, reader.num_frames) == (10, 29)
    shown = [round(frame[..., 0].mean() / 12) for frame in reader.frames()]
    assert shown == [*range(9), *[9] * 20]


def test_bursts_and_jitter_do_not_set_the_rate(tmp_path):
    # A phone: 30 frames a second give or take 4 ms, twice two frames at once, a second without any.
    jitter = np.random.default_rng(0).integers(-4, 5, 60)
    milliseconds = np.round(np.arange(60) * 1000 / 30).astype(int) + jitter
    milliseconds[0] = 0
    milliseconds[[21, 41]] = milliseconds[[20, 40]] + 1
    milliseconds[30:] += 1000
    path = write_clip(tmp_path / "a.mkv", ramp(60), milliseconds=milliseconds.tolist(), container="matroska")
    check_grid(path, milliseconds, 30)


def test_the_rate_of_the_grid_is_bounded(tmp_path):
    milliseconds = [4 * index for index in range(40)] + [1160 + 4 * index for index in range(20)]
    path = write_clip(tmp_path / "a.mkv", ramp(60), milliseconds=milliseconds, container="matroska")
    assert len(set(check_grid(path, milliseconds, 60))) < 30


def test_dense_rate():
    def rate(*times: float, tick: int) -> Fraction:
        return dense_rate([Fraction(time, tick) for time in times], Fraction(1, tick))

    assert rate(0, 1, tick=12) == 12
    assert rate(0, 33, 67, 100, 133, 167, 200, 233, 267, 300, 2300, tick=1000) == 30
    assert rate(*(1001 * k for k in range(20)), 270_000, tick=30_000) == Fraction(30000, 1001)
    assert rate(*range(9), 90, tick=10) == 10
    assert rate(*(7 * k for k in range(9)), tick=2) == Fraction(2, 7)
    assert rate(0, 0, 0, 0, 0, tick=10) == 60


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_time_stamps_that_claim_hours_are_refused(tmp_path, container):
    milliseconds = [40 * index for index in range(10)] + [20 * 3_600_000 + 40 * index for index in range(10)]
    path = write_clip(tmp_path / "a.bin", ramp(20), milliseconds=milliseconds, container=container)
    with pytest.raises(InputError, match=r"shows one picture for 20\.0 hours"):
        open_video(path)
