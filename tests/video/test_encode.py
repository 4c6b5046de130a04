"""Writing videos: what goes in comes out, the whole of it or nothing appears, and memory does not grow."""

import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from video_clips import ramp, ramp_index

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import check_writable, is_written, open_writer, output_target

OUTPUTS = ["a.mp4", "a.gif", "frames", "frames/%04d.png"]


def colour_bars(height: int = 96, width: int = 256) -> np.ndarray:
    """[height, width, 3]: the eight corners of the colour cube at 16…235, then a grey ramp."""
    bars = np.array([[16 + 219 * (i >> k & 1) for k in (2, 1, 0)] for i in range(8)], np.uint8)
    top = np.repeat(bars, width // 8, 0)[None].repeat(height * 2 // 3, 0)
    grey = np.linspace(0, 255, width).astype(np.uint8)[None, :, None].repeat(height - len(top), 0).repeat(3, 2)
    return np.concatenate([top, grey])


def write(path: Path, frames: np.ndarray, fps: float | Fraction = 15, **settings) -> Path:
    with open_writer(path, fps, frames.shape[2], frames.shape[1], progress=False, **settings) as writer:
        for start in range(0, len(frames), 7):
            writer.write(frames[start : start + 7])
    assert writer.num_frames == len(frames)
    return path.parent if path.suffix == ".png" else path


@pytest.mark.parametrize("name", OUTPUTS)
def test_count_order_and_rate(tmp_path, name):
    path = write(tmp_path / name, ramp(40))
    reader = open_video(path, fps=15)
    assert (reader.num_frames, reader.rate, reader.width, reader.height) == (40, 15, 128, 96)
    assert [ramp_index(frame) for frame in reader.frames()] == list(range(40))


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_appears_has_a_name(tmp_path, name):
    path = tmp_path / name
    assert output_target(path) == (tmp_path / "frames" if "frames" in name else path)
    output_target(path).parent.mkdir(exist_ok=True)
    assert not is_written(path)
    write(path, ramp(2))
    assert is_written(path)
    assert is_written(output_target(path))
    assert list(tmp_path.iterdir()) == [output_target(path)]


def test_an_empty_folder_is_no_video(tmp_path):
    assert not is_written(tmp_path)
    assert not is_written(tmp_path / "a.avi")


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(15, 15), (8.0, 8), (29.97, Fraction(30000, 1001)), (Fraction(24000, 1001), Fraction(24000, 1001))],
)
def test_mp4_rate_is_exact(tmp_path, fps, rate):
    path = write(tmp_path / "a.mp4", ramp(31), fps)
    assert open_video(path).rate == rate
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(float(rate), abs=1e-6)
    assert sum(1 for _ in iter(capture.grab, False)) == 31


@pytest.mark.parametrize(("name", "bound"), [("a.mp4", 2.5), ("a.gif", 3.0), ("frames", 0.0)])
def test_colours_survive(tmp_path, name, bound):
    bars = colour_bars()
    read = np.stack(list(open_video(write(tmp_path / name, bars[None].repeat(5, 0))).frames())).astype(int)
    assert np.abs(read - bars).mean() <= bound
    # Away from edges, where 4:2:0 must blur colour, every bar is right on its own.
    centres = np.abs(read[:, 30, 16::32] - bars[30, 16::32]).max()
    assert centres <= (2 * bound if name != "a.gif" else 12)


def test_mp4_is_bt709_and_says_so(tmp_path):
    colours = np.array([[200, 30, 60], [20, 180, 90], [60, 40, 220], [90, 90, 90]], float)
    frame = np.repeat(np.repeat(colours[None], 32, 1), 64, 0).astype(np.uint8)
    with av.open(str(write(tmp_path / "a.mp4", frame[None].repeat(3, 0), crf=4))) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.pix_fmt, context.color_range, context.colorspace) == ("yuv420p", 1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
        yuv = next(container.decode(stream)).to_ndarray()
    r, g, b = colours.T / 255
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    assert np.abs(yuv[32, 16:128:32] - (16 + 219 * y)).max() <= 1.5
    u = yuv[64:80].reshape(32, 64)
    assert np.abs(u[16, 8::16] - (128 + 224 * (b - y) / 1.8556)).max() <= 1.5


def test_index_comes_first(tmp_path):
    data = write(tmp_path / "a.mp4", ramp(20)).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("height", "width"), [(97, 128), (96, 127), (33, 35)])
def test_odd_sizes(tmp_path, height, width):
    frames = ramp(4, 100, 130)[:, :height, :width]
    for name, grown in {"a.mp4": (height + height % 2, width + width % 2), "a.gif": (height, width)}.items():
        read = np.stack(list(open_video(write(tmp_path / name, frames)).frames()))
        assert read.shape == (4, *grown, 3)
        assert np.abs(read[:, :height, :width].astype(int) - frames).mean() < 4


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_single_frame(tmp_path, name):
    path = write(tmp_path / name, ramp(1))
    frames = list(open_video(path).frames())
    assert len(frames) == 1
    assert np.abs(frames[0].astype(int) - ramp(1)[0]).mean() < 4


def test_gif_has_one_palette_and_stays_still(tmp_path):
    """A still background must not flicker while something moves in front of it."""
    yy, xx = np.mgrid[:96, :128]
    background = np.stack([xx * 2, yy * 2, 255 - xx], -1).astype(np.uint8)
    frames = background[None].repeat(12, 0)
    for index, frame in enumerate(frames):
        frame[40:60, 8 * index : 8 * index + 16] = (250, 20 * index, 30)
    read = np.stack(list(open_video(write(tmp_path / "a.gif", frames)).frames()))
    still = (frames == background).all((0, 3))
    assert still.mean() > 0.7
    assert (read[:, still] == read[0][still]).all()
    assert len(np.unique(read.reshape(-1, 3), axis=0)) <= 256


def fail_midway(path: Path) -> None:
    with open_writer(path, 15, 128, 96) as writer:
        writer.write(ramp(6))
        raise ZeroDivisionError


@pytest.mark.parametrize("name", OUTPUTS)
def test_all_or_nothing(tmp_path, name):
    path = write(tmp_path / name, ramp(8))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ZeroDivisionError):
        fail_midway(tmp_path / name)
    with pytest.raises(InputError, match="no frame was written"), open_writer(tmp_path / name, 15, 128, 96):
        pass
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before

    write(tmp_path / name, ramp(3))
    assert open_video(path).num_frames == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_a_folder_of_pictures_survives_a_kill_between_two_names(tmp_path):
    """The earlier folder has been moved away, the new one is not yet in its place."""
    write(tmp_path / "frames", ramp(3))
    (tmp_path / "frames").rename(tmp_path / ".frames.mimicmotion-earlier")
    with pytest.raises(RuntimeError), open_writer(tmp_path / "frames", 15, 64, 48, progress=False):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    assert len(list((tmp_path / "frames").iterdir())) == 3
    write(tmp_path / "frames", ramp(2))
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    assert len(list((tmp_path / "frames").iterdir())) == 2


def test_only_the_finished_file_has_the_name(tmp_path):
    path = tmp_path / "new" / "folder" / "a.mp4"
    with open_writer(path, 15, 128, 96) as writer:
        writer.write(ramp(2)[0])
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "holiday.jpg").write_text("")
    for name, sentence in {
        "a.avi": r"give a name like x\.mp4, x\.gif, or folder",
        "a.png": r"give a name like x\.mp4, x\.gif, or folder",
        "file/a.mp4": "a folder in this path is a file",
        "file": "is a file, but pictures go into a folder",
        "album": r"holds other things \(holiday\.jpg\)",
        f"{'x' * 300}.mp4": "this name is too long",
    }.items():
        with pytest.raises(InputError, match=sentence):
            check_writable(tmp_path / name)
        with pytest.raises(InputError, match=sentence):
            open_writer(tmp_path / name, 15, 64, 64)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path / "b.mp4")
    # Nobody may create files here, not even root.
    with pytest.raises(InputError, match="cannot write /proc/"):
        check_writable("/proc/nowhere/a.mp4")
    with pytest.raises(InputError, match="pictures need a folder of their own"):
        check_writable("%05d.png")
    check_writable(tmp_path / "folder")
    check_writable(tmp_path / "not" / "yet" / "a.mp4")
    assert not (tmp_path / "not").exists()


def test_numbers_out_of_range(tmp_path):
    for settings, sentence in [
        ((0, 64, 64), r"cannot write .*a\.mp4 at 0 frames per second; use 0.01 to 1000"),
        ((1e-9, 64, 64), r"a\.mp4 at 1e-09 frames per second"),
        ((12345.678, 64, 64), r"a\.mp4 at 12345.678 frames per second"),
        ((float("inf"), 64, 64), r"a\.mp4 at inf frames per second"),
        ((float("nan"), 64, 64), r"a\.mp4 at nan frames per second"),
        ((15, 0, 64), r"a\.mp4 with 0x64 pixels"),
        ((15, 64, 16386), r"a\.mp4 with 64x16386 pixels; each side may have 1 to 16384"),
        ((15, 64, 64, {"crf": 60}), "crf 60 is out of range"),
        ((15, 64, 64, {"audio_start": -1.0}), "audio_start -1"),
    ]:
        numbers, options = settings[:3], settings[3] if len(settings) > 3 else {}
        with pytest.raises(InputError, match=sentence):
            open_writer(tmp_path / "a.mp4", *numbers, **options)
    with pytest.raises(InputError, match=r"a\.gif: a GIF cannot show 60 frames"):
        open_writer(tmp_path / "a.gif", 60, 64, 64)
    with (
        pytest.raises(InputError, match=r"height and width \(64, 64\)"),
        open_writer(tmp_path / "a.mp4", 15, 64, 64) as writer,
    ):
        writer.write(ramp(2))


def test_disk_full_while_writing(tmp_path):
    """A limit on file sizes makes the same calls fail as a full disk does."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 256, 256, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for path in (tmp_path / name for name in OUTPUTS[:3]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(InputError) as caught:
                write(path, noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(caught.value).startswith(f"cannot write {path}: File too large")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


STREAM = """
import os, pathlib, sys
import numpy as np
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer
frame = np.random.default_rng(0).integers(0, 256, (45, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)

def write(path, num_frames):
    with open_writer(path, 15, 640, 360, progress=False) as writer:
        for i in range(num_frames):
            writer.write(np.roll(frame, 8 * i, 1))
    print(sum(int(f[0, 0, 0] >= 0) for f in open_video(path).frames()))
    # (`ru_maxrss` would include what the parent process had.)
    print(next(line.split()[1] for line in pathlib.Path("/proc/self/status").open() if line.startswith("VmHWM")))

for path, *numbers in zip(*[iter(sys.argv[1:])] * 3):
    if not os.fork():  # a peak of its own, with the modules of this process
        for number in numbers:
            write(path, int(number))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def test_memory_does_not_grow_with_length(tmp_path):
    """One process makes a short video, then a long one: the second adds little to the peak."""
    command = [sys.executable, "-c", STREAM, str(tmp_path / "a.mp4"), "40", "100", str(tmp_path / "a.gif"), "20", "80"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [int(number) for number in output[::2]] == [40, 100, 20, 80]
    peaks = [int(peak) / 1024 for peak in output[1::2]]
    # The additional frames are 0.66 MiB each: 40 MiB together.
    assert peaks[1] - peaks[0] < 25, peaks
    assert peaks[3] - peaks[2] < 25, peaks


def test_png_frames_are_exact(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    folder = write(tmp_path / "frames" / "%03d.png", frames)
    assert sorted(p.name for p in folder.iterdir()) == ["000.png", "001.png", "002.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "001.png")), frames[1])
