"""The watermark: its power, its survival of what happens to videos, and the bound of its false positives."""

import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from video_clips import ramp

from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.output import Video
from mimicmotion_jax.provenance import watermark
from mimicmotion_jax.provenance.verify import verify
from mimicmotion_jax.provenance.watermark import mark
from mimicmotion_jax.provenance.watermark_detection import detect, false_positive_rate, score_shifts
from mimicmotion_jax.video.decode import open_video

H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")


def scene(num_frames=24, height=448, width=256, seed=0):
    """Pictures with the smoothness of photographs, a still background and a patch that moves across it."""
    generator = np.random.default_rng(seed)

    def picture(rows, columns):
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(columns), np.fft.rfftfreq(rows), indexing="xy"))
        spectrum = np.exp(2j * np.pi * generator.random((3, *frequency.shape))) / np.maximum(frequency, 0.01) ** 1.5
        pixels = np.fft.irfft2(spectrum.swapaxes(1, 2), (columns, rows)).swapaxes(1, 2)
        return np.clip(128 + 45 * pixels / pixels.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)

    frames = np.repeat(picture(height, width)[None], num_frames, axis=0)
    patch = picture(height // 2, width // 3)
    for index, frame in enumerate(frames):
        x, y = index * (width * 2 // 3) // num_frames, height // 3 + int(20 * np.sin(index / 3))
        frame[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
    return frames


def ffmpeg(source, destination, *arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", source, *arguments, destination]
    subprocess.run(command, check=True)
    return list(open_video(destination).frames())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three seconds as `save` writes them, marked, at 8 frames per second."""
    folder, frames = tmp_path_factory.mktemp("watermark"), scene()
    blank = np.zeros(frames.shape, np.uint8)
    item = Prepared(frames[0], np.concatenate([blank[:1], blank]), None, 8, PipelineOptions())
    Video(frames.astype(np.float32) / 255, item).save(folder / "marked.mp4", watermark=True)
    Video(frames.astype(np.float32) / 255, item).save(folder / "plain.mp4")
    return folder


ATTACKS = {
    "crf 32": (*H264, "-crf", "32"),
    "half size": ("-vf", "scale=iw/2:-2", *H264, "-crf", "24"),
    "1.5 times": ("-vf", "scale=iw*1.5:-2", *H264, "-crf", "28"),
    "crop to the old size, re-timed": ("-vf", "crop=iw*0.9:ih*0.9,scale=256:448,setpts=0.7*PTS,fps=12", *H264),
    "mirrored and darker": ("-vf", "hflip,eq=brightness=-0.1:contrast=0.7:saturation=0.3", *H264, "-crf", "28"),
    "turned, with noise": ("-vf", "transpose=1,noise=alls=8:allf=t", *H264, "-crf", "26"),
    "vp9": ("-c:v", "libvpx-vp9", "-crf", "36", "-b:v", "0", "-cpu-used", "8", "-deadline", "realtime"),
    "gif": ("-vf", "split[a][b];[a]palettegen[p];[b][p]paletteuse"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_survives(saved, tmp_path, attack):
    suffix = {"vp9": "webm", "gif": "gif"}.get(attack, "mp4")
    found = detect(ffmpeg(saved / "marked.mp4", tmp_path / f"a.{suffix}", *ATTACKS[attack]))
    assert found.found, found
    scales = {"half size": 0.5, "1.5 times": 1.5, "crop to the old size, re-timed": 1 / 0.9}
    assert found.scale == pytest.approx(scales.get(attack, 1.0), rel=0.02)


def test_is_not_found_where_it_is_not(saved):
    plain = list(open_video(saved / "plain.mp4").frames())
    assert detect(plain).false_positive_rate > 0.01
    # Another key's mark is none.
    marked = list(open_video(saved / "marked.mp4").frames())
    assert detect(marked).false_positive_rate < 1e-10
    assert detect(marked, key=1).false_positive_rate > 0.01
    for frames in (np.zeros((2, 200, 300, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8), ramp(3)):
        assert not detect(frames).found


@pytest.mark.parametrize("size", [(448, 256), (192, 193), (333, 501)])
@pytest.mark.parametrize("content", ["photograph", "noise", "grey", "black", "white"])
def test_power(size, content):
    shape = (2, *size, 3)
    frames = {
        "photograph": lambda: scene(2, *size),
        "noise": lambda: np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "grey": lambda: np.full(shape, 100, np.uint8),
        "black": lambda: np.zeros(shape, np.uint8),
        "white": lambda: np.full(shape, 255, np.uint8),
    }[content]()
    before = frames.copy()
    marked = mark(frames)
    assert np.array_equal(frames, before)
    assert marked.dtype == np.uint8
    for one, other in zip(frames, marked, strict=True):
        psnr = 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))
        # Where half of the pattern is cut off at black or white, three decibels less of it are left.
        assert 44.0 <= psnr <= (44.7 if content in ("photograph", "grey") else 49)


def test_frames_in_memory_stay_as_they_are(saved):
    frames = scene(4).astype(np.float32) / 255
    before = frames.copy()
    Video(frames, Prepared(scene(1)[0], np.zeros((5, 448, 256, 3), np.uint8), None, 8, PipelineOptions())).save(
        saved / "pictures", watermark=True
    )
    assert np.array_equal(frames, before)
    written = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted((saved / "pictures").glob("*.png"))])
    assert np.array_equal(written, mark(np.round(frames * 255).astype(np.uint8)))


def test_bound_of_false_positives():
    """By hand, and against the frequency of scores where it can be reached: spectra that do not know the key."""
    assert false_positive_rate(8.0, 10**7) == pytest.approx(10**7 * 1.2664165549094e-14)  # exp(-32)
    assert false_positive_rate(1.0, 10) == 1.0
    generator = np.random.default_rng(0)
    # One fixed "video" with a spectrum of its own, few large values and many small ones, and many keys.
    frequencies, _ = watermark.key_phases()
    spectrum = generator.pareto(1.5, len(frequencies)) * np.exp(2j * np.pi * generator.random(len(frequencies)))
    weights = np.sqrt(np.abs(spectrum))
    angles = np.angle(spectrum) - generator.uniform(0, 2 * np.pi, (50_000, len(frequencies)))
    scores = np.cos(angles) @ weights / np.sqrt((weights**2).sum() / 2)
    for threshold, gaussian in ((1.0, 0.15866), (2.0, 0.02275), (3.0, 0.00135)):
        rate = np.mean(scores > threshold)
        assert rate <= false_positive_rate(threshold, 1)
        assert rate == pytest.approx(gaussian, rel=0.4)  # the few large values make the tail thinner than Gaussian


def test_scores_of_all_shifts_by_their_formula():
    frequencies, phases = watermark.key_phases()
    limit = int(watermark.BAND[1])
    generator = np.random.default_rng(1)
    spectrum = generator.normal(size=(limit + 1, 2 * limit + 1)) + 1j * generator.normal(
        size=(limit + 1, 2 * limit + 1)
    )
    scores = score_shifts(spectrum)
    values = spectrum[frequencies[:, 0], frequencies[:, 1] + limit]
    weights = np.sqrt(np.abs(values))
    size = scores.shape[-1]
    for a, b in ((0, 0), (5, 11), (40, 63)):
        shift = 2 * np.pi * (frequencies @ [a, b]) / size
        expected = (weights * np.cos(np.angle(values) - phases - shift)).sum() / np.sqrt((weights**2).sum() / 2)
        assert scores[0, a, b] == pytest.approx(expected, abs=1e-4)


def test_verify_reports_it(saved, tmp_path):
    """After a platform's re-encode neither comment nor credentials are left."""
    ffmpeg(saved / "marked.mp4", tmp_path / "a.mp4", "-map_metadata", "-1", *H264, "-crf", "28")
    findings = verify(tmp_path / "a.mp4")
    assert findings.found
    assert findings.watermark.found
    assert findings.credentials is None
    assert findings.settings == {}
    assert "found: score" in str(findings)
