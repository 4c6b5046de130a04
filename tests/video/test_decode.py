"""Reading videos: counts, order, time, orientation, colour, and one clear sentence for every kind of broken file."""

import logging
import resource
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from ffmpeg_binary import ffmpeg
from PIL import Image
from video_clips import MEDIA, click_track, ramp, ramp_index, write_clip

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.frame_rate import exact_rate

FASTSTART = {"movflags": "faststart"}


def indices(reader, **selection) -> list[int]:
    return [ramp_index(frame) for frame in reader.frames(**selection)]


@pytest.mark.parametrize("rate", [25, 8, 60, Fraction(30000, 1001), Fraction(24000, 1001)])
def test_rate_count_and_order_are_exact(tmp_path, rate):
    reader = open_video(write_clip(tmp_path / "a.mp4", ramp(40), rate=rate))
    assert reader.rate == rate
    assert reader.fps == float(rate)
    assert (reader.num_frames, reader.width, reader.height) == (40, 128, 96)
    assert reader.constant_rate
    assert not reader.has_audio
    assert reader.duration == pytest.approx(40 / rate)
    assert indices(reader) == list(range(40))


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libvpx", "webm"), ("libvpx-vp9", "webm"), ("mpeg4", "avi"), ("libx264", "mpegts"), ("libx264", "matroska")],
)
def test_other_formats(tmp_path, codec, container):
    reader = open_video(write_clip(tmp_path / "a.bin", ramp(30), codec=codec, container=container))
    assert (reader.num_frames, reader.rate) == (30, 25)
    assert indices(reader) == list(range(30))


def test_pixels_agree_with_opencv(tmp_path):
    path = write_clip(tmp_path / "a.mp4", ramp(12))
    capture = cv2.VideoCapture(str(path))
    for frame in open_video(path).frames():
        ok, bgr = capture.read()
        assert ok
        assert frame.dtype == np.uint8
        # OpenCV's conversion from YUV is the faster, less exact one.
        assert np.abs(frame.astype(int) - bgr[..., ::-1]).mean() < 2.5
    assert not capture.read()[0]


def test_selection_follows_slices(tmp_path):
    reader = open_video(write_clip(tmp_path / "a.mp4", ramp(40)))
    for selection in ({"stride": 3}, {"start": 7, "stop": 19, "stride": 4}, {"start": -5}, {"stop": 500, "start": 35}):
        expected = list(range(40))[selection.get("start") : selection.get("stop") : selection.get("stride")]
        assert indices(reader, **selection) == expected
    with pytest.raises(InputError, match="has 40 frames, none of them"):
        reader.frames(start=40)
    with pytest.raises(InputError, match="stride 0"):
        reader.frames(stride=0)


def test_frames_can_be_read_again_and_in_parallel(tmp_path):
    reader = open_video(write_clip(tmp_path / "a.mp4", ramp(10)))
    assert [(ramp_index(a), ramp_index(b)) for a, b in zip(reader.frames(), reader.frames(start=2), strict=False)] == [
        (i, i + 2) for i in range(8)
    ]


def test_variable_rate_is_laid_on_a_grid(tmp_path):
    # One second at 25 frames a second, one at 5; how long the last frame lasts the file does not say.
    times = [40 * i for i in range(25)] + [1000 + 200 * i for i in range(5)]
    reader = open_video(write_clip(tmp_path / "a.mkv", ramp(30), milliseconds=times, container="matroska"))
    assert not reader.constant_rate
    assert reader.fps == 25
    middles = 1000 * (np.arange(reader.num_frames) + 0.5) / reader.fps
    assert indices(reader) == (np.searchsorted(times, middles, side="right") - 1).tolist()
    assert 1.8 < reader.duration < 2.0 + 1 / reader.fps


def test_rounded_time_stamps_count_as_constant(tmp_path):
    times = [round(1000 * i / 30) for i in range(40)]
    reader = open_video(write_clip(tmp_path / "a.mkv", ramp(40), milliseconds=times, container="matroska", rate=30))
    assert reader.constant_rate
    assert reader.fps == pytest.approx(30, rel=1e-3)
    assert indices(reader) == list(range(40))


# (a, b, c, d) of the track's matrix: a point (p, q) of the stored picture is shown at (a p + c q, b p + d q).
@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0)]
)
def test_rotation_metadata_is_applied(tmp_path, matrix, turns):
    stored = ramp(5)
    stored[:, :32, :32] = (255, 0, 0)
    path = write_clip(tmp_path / "phone.mp4", stored)
    data = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    offset = data.index(b"tkhd") + 44
    data[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)

    reader = open_video(path)
    upright = np.rot90(stored[0], turns)
    assert (reader.height, reader.width) == upright.shape[:2]
    frame = next(reader.frames())
    assert frame.shape == upright.shape
    assert frame.flags.c_contiguous
    assert np.abs(frame.astype(int) - upright).mean() < 8


def test_non_square_pixels_are_stretched(tmp_path):
    with av.open(str(tmp_path / "wide.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(1, 96, 96)[0], format="rgb24")))
        output.mux(stream.encode(None))
    reader = open_video(tmp_path / "wide.mp4")
    assert (reader.width, reader.height) == (128, 96)
    assert next(reader.frames()).shape == (96, 128, 3)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("tag", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114)])
def test_colour_follows_the_tag(tmp_path, tag, kr, kb, full_range):
    colours = np.array([[200, 30, 60], [20, 180, 90], [60, 40, 220], [128, 128, 128]], float)
    # The formulas of BT.709 and BT.601 (tag 2: none given).
    r, g, b = colours.T / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = np.stack([(b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)])
    luma = 255 * y if full_range else 16 + 219 * y
    chroma = 128 + (255 if full_range else 224) * chroma
    with av.open(str(tmp_path / "c.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 32, "yuv420p"
        stream.codec_context.color_range = 2 if full_range else 1
        stream.codec_context.colorspace = tag
        # Patches of 32x32 side by side; the colour planes have half the size.
        planes = [
            np.tile(np.repeat(plane, side), (side, 1)).ravel()
            for plane, side in zip((luma, *chroma), (32, 16, 16), strict=True)
        ]
        yuv = np.concatenate(planes).round().astype(np.uint8).reshape(48, 128)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")))
        output.mux(stream.encode(None))
    frame = next(open_video(tmp_path / "c.mkv").frames())
    assert np.abs(frame[16, 16::32].astype(float) - colours).max() <= 2.5


def test_animated_gif_with_transparency(tmp_path):
    pictures = [Image.new("RGBA", (64, 48), (10 * i, 100, 200, 255)) for i in range(6)]
    pictures[0].paste((0, 0, 0, 0), (0, 0, 32, 48))
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100, loop=0)
    reader = open_video(tmp_path / "a.gif")
    assert (reader.num_frames, reader.rate, reader.width, reader.height) == (6, 10, 64, 48)
    frames = list(reader.frames())
    assert len(frames) == 6
    assert (frames[0][:, :30] == 255).all()
    assert [int(np.abs(f[24, 48].astype(int) - (10 * i, 100, 200)).max()) <= 6 for i, f in enumerate(frames)] == [1] * 6


def test_folder_of_pictures_in_numeric_order(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = ramp(12)
    for index in (*range(5, 12), *range(5)):
        Image.fromarray(frames[index]).save(folder / f"shot{index}.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"")
    reader = open_video(folder, fps=29.97)
    assert (reader.num_frames, reader.rate) == (12, Fraction(30000, 1001))
    np.testing.assert_array_equal(np.stack(list(reader.frames())), frames)
    np.testing.assert_array_equal(np.stack(list(reader.frames(start=1, stride=5))), frames[1::5])
    assert not caplog.text
    assert {open_video(folder).rate for _ in range(2)} == {24}
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} does not record its frame rate: 24 assumed; motion_fps sets another."
    ]
    with pytest.raises(InputError, match="0 frames per second"):
        open_video(folder, fps=0)

    Image.fromarray(frames[3][:50]).save(folder / "shot3.png")
    with pytest.raises(InputError, match=r"shot3\.png is 128x50, the first picture of the folder 128x96"):
        list(reader.frames())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp"])
def test_a_picture_is_a_video_of_one_frame(tmp_path, name, caplog):
    caplog.set_level(logging.INFO)
    Image.fromarray(ramp(1)[0]).save(tmp_path / name)
    reader = open_video(tmp_path / name)
    assert not caplog.text  # nothing is assumed that matters
    assert (reader.num_frames, reader.width, reader.height) == (1, 128, 96)
    assert [frame.shape for frame in reader.frames()] == [(96, 128, 3)]


def test_the_rate_that_a_video_records_holds(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write_clip(tmp_path / "a.mp4", ramp(5), rate=30)
    assert open_video(path, fps=12).rate == open_video(path).rate == 30
    assert "frame rate" not in caplog.text


def test_sound_is_noticed(tmp_path):
    assert open_video(write_clip(tmp_path / "a.mp4", ramp(25), sound=click_track(1, 48_000))).has_audio


def test_what_is_not_a_video(tmp_path):
    (tmp_path / "text.mp4").write_text("A film, surely.\n" * 50)
    (tmp_path / "notes.txt").write_text("Notes.\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "nothing").mkdir()
    write_clip(tmp_path / "sound.m4a", sound=click_track(1, 48_000))
    for name, sentence in {
        "missing.mp4": "there is no video",
        "text.mp4": "is not a video",
        "notes.txt": "is not a video|holds no video",
        "empty.mp4": "is empty",
        "nothing": "holds no pictures",
        "sound.m4a": "holds no video",
    }.items():
        with pytest.raises(InputError, match=sentence) as caught:
            open_video(tmp_path / name)
        assert str(caught.value).count(".") <= 2 + str(tmp_path / name).count(".")
        assert name in str(caught.value)


def whole_packets(path: Path, size: int) -> int:
    """Number of coded frames that lie wholly within the first `size` bytes."""
    with av.open(str(path)) as container:
        return sum(1 for p in container.demux(video=0) if p.size and p.pos + p.size <= size)


@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
def test_cut_off_in_the_middle(tmp_path, part):
    path = write_clip(tmp_path / "whole.mp4", ramp(60), options=FASTSTART)
    data = path.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(part * len(data))])
    readable = whole_packets(path, int(part * len(data)))
    assert 0 < readable < 60
    with pytest.raises(InputError, match=f"only {readable} of its 60 frames can be read"):
        open_video(cut)
    reader = open_video(cut, tolerate_truncation=True)
    assert readable <= reader.num_frames <= readable + 3
    found = indices(reader)
    # Coded order is not the order of display: next to the cut a frame may be missing, and is stood in for.
    assert found[: readable - 4] == list(range(readable - 4))
    assert len(found) == reader.num_frames
    assert found == sorted(found)


def test_index_cut_off(tmp_path):
    path = write_clip(tmp_path / "whole.mp4", ramp(20))
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="cut off so that none of it can be read"):
        open_video(tmp_path / "cut.mp4", tolerate_truncation=True)


@pytest.mark.parametrize("container", ["matroska", "avi"])
def test_cut_off_in_other_formats(tmp_path, container):
    path = write_clip(tmp_path / "whole.bin", ramp(60), container=container, codec="mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="of its 60 frames can be read"):
        open_video(path)
    reader = open_video(path, tolerate_truncation=True)
    assert len(list(reader.frames())) == reader.num_frames < 60


def test_frames_are_decoded_only_when_asked_for(tmp_path):
    """Damage late in the file is met only by who reads that far: so the start is read without decoding the rest."""
    path = write_clip(tmp_path / "a.mp4", ramp(80), options=FASTSTART)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        damaged = [p for p in container.demux(video=0) if p.size and p.pts >= 60 * p.stream.duration // 80]
        for packet in damaged:
            data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    reader = open_video(path)
    assert ramp_index(next(reader.frames())) == 0
    assert indices(reader, stop=30) == list(range(30))
    with pytest.raises(InputError, match=r"only \d+ of its 80 frames can be read"):
        list(reader.frames())
    tolerant = indices(open_video(path, tolerate_truncation=True))
    assert 30 < len(tolerant) < 80
    assert tolerant == list(range(len(tolerant)))


def test_exact_rate():
    assert exact_rate(15) == 15
    assert exact_rate(12.5) == Fraction(25, 2)
    assert exact_rate(29.97) == exact_rate(30000 / 1001) == Fraction(30000, 1001)
    assert exact_rate(23.976) == exact_rate(23.98) == Fraction(24000, 1001)
    assert exact_rate(59.94) == Fraction(60000, 1001)
    assert exact_rate(Fraction(8, 3)) == Fraction(8, 3)


@pytest.mark.skipif(not MEDIA.is_dir(), reason="no sample media in ../shared/media")
@pytest.mark.parametrize(
    ("name", "num_frames", "width", "height", "rate"),
    [
        ("fullbody_dance.mp4", 288, 1080, 1920, 24),
        ("halfbody_hands.mp4", 133, 576, 1024, 29),
        ("dance_512x896.mp4", 657, 512, 896, 8),
        ("dance_512x896_skeleton.mp4", 657, 512, 896, 8),
        ("small_person.mp4", 100, 1080, 1920, 60),
        # Stored as 176x144, with pixels wider than high (128:117).
        ("head_only_lowres.mp4", 120, 193, 144, Fraction(30000, 1001)),
    ],
)
def test_real_videos(name, num_frames, width, height, rate):
    reader = open_video(MEDIA / "videos" / name)
    assert (reader.num_frames, reader.width, reader.height, reader.rate) == (num_frames, width, height, rate)
    (last,) = reader.frames(start=num_frames - 1)
    assert last.shape == (height, width, 3)


def test_pictures_of_absurd_size_are_not_decoded(tmp_path):
    """The container says 64x64, each PNG in it 30,000x30,000: 3.6 GB as RGBA."""
    path = tmp_path / "bomb.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64:d=0.2", "-c:v", "png", path)
    data, at = bytearray(path.read_bytes()), 0
    while (at := data.find(b"IHDR", at)) >= 0:
        data[at + 4 : at + 12] = struct.pack(">II", 30_000, 30_000)
        data[at + 17 : at + 21] = struct.pack(">I", zlib.crc32(data[at : at + 17]))
        at += 4
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="no frame of"):
        open_video(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
