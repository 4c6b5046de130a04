"""Pictures: every colour mode comes out as the RGB one sees, sizes follow the official rule, bad files say so."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_clips import MEDIA

from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.image import Crop, crop_resize, is_still, read_image, target_size

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 60, 3), np.uint8)
GREY = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (40, 1))


def grey3(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, -1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, lossless=True) if suffix == "webp" else Image.fromarray(RGB).save(path)
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, RGB)


@pytest.mark.parametrize(
    ("orientation", "as_seen"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(tmp_path, orientation, as_seen):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), as_seen(RGB))


def test_greyscale_and_palette(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), grey3(GREY))
    Image.fromarray(GREY > 100).save(tmp_path / "bilevel.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bilevel.png"), grey3(np.where(GREY > 100, 255, 0)))
    few = RGB // 128 * 255
    Image.fromarray(few).quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), few)


def test_sixteen_bits_are_scaled(tmp_path):
    deep = GREY.astype(np.uint16) * 257 + 40 * (GREY < 255).astype(np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), grey3(GREY))


def test_real_numbers_are_brightness_or_refused(tmp_path):
    for scale in (1, 255):
        Image.fromarray((GREY / 255 * scale).astype(np.float32)).save(tmp_path / "a.tiff")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), grey3(GREY))
    for low, high in ((-1, 1), (0, 65535), (0, np.nan), (0, np.inf)):
        samples = np.full(GREY.shape, low, np.float32)
        samples[0, 0] = high
        Image.fromarray(samples).save(tmp_path / "b.tiff")
        with pytest.raises(InputError, match=r"b\.tiff holds numbers from .*; save it with 8 or 16 bits\."):
            read_image(tmp_path / "b.tiff")


@pytest.mark.filterwarnings("error")
def test_large_pictures_are_read_or_refused_for_their_size(tmp_path):
    """Bilevel pictures: as many pixels as cameras make, in little time and space."""
    Image.new("1", (14_000, 13_000)).save(tmp_path / "huge.png")
    for look in (read_image, lambda path: list(open_video(path).frames())):
        with pytest.raises(InputError, match=r"huge\.png is too large, a picture may have 178 million pixels; make"):
            look(tmp_path / "huge.png")
    Image.new("1", (11_000, 10_000), 1).save(tmp_path / "large.png")
    assert is_still(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png").shape == (10_000, 11_000, 3)


def test_transparency_is_laid_over_white(tmp_path):
    alpha = np.tile(np.linspace(0, 255, 60).round(), (40, 1))
    expected = RGB * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]
    Image.fromarray(np.dstack([RGB, alpha.astype(np.uint8)])).save(tmp_path / "rgba.png")
    assert np.abs(read_image(tmp_path / "rgba.png") - expected).max() <= 1
    Image.fromarray(np.dstack([GREY, alpha.astype(np.uint8)])).save(tmp_path / "la.png")
    expected = GREY * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(read_image(tmp_path / "la.png") - grey3(expected)).max() <= 1
    palette = Image.fromarray(RGB // 128 * 255).quantize(8)
    index = np.asarray(palette)[0, 0]
    palette.save(tmp_path / "p.png", transparency=int(index))
    expected = np.where((np.asarray(palette) == index)[..., None], 255, RGB // 128 * 255)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (60, 40), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    with collect_assumptions() as notes:
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() <= 4
    assert notes == ["a CMYK picture has no colour profile: its colours are converted roughly."]


def test_bad_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("a picture, surely")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(RGB[:15]).save(tmp_path / "small.png")
    for name, sentence in {
        "missing.png": "there is no picture",
        "folder.png": "there is no picture",
        "empty.png": "is empty",
        "text.jpg": "is damaged or not a picture",
        "small.png": "is only 60x15 pixels",
    }.items():
        with pytest.raises(InputError, match=sentence):
            read_image(tmp_path / name)


def is_readable(path: Path) -> bool:
    try:
        return read_image(path).shape[-1] == 3
    except InputError:
        return False


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about damaged TIFF tags.
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damage_never_escapes_as_another_error(tmp_path, name):
    """Cut short or with bytes overwritten anywhere: a picture or an InputError, no third thing."""
    rng, buffer = np.random.default_rng(1), io.BytesIO()
    Image.fromarray(RGB).save(buffer, name)
    whole, path, refused = buffer.getvalue(), tmp_path / "a", 0
    for trial in range(60):
        data = bytearray(whole)
        if trial % 2:
            data = data[: int(rng.integers(1, len(whole)))]
        else:
            start = int(rng.integers(0, min(len(whole), 400)))
            data[start : start + 8] = rng.bytes(8)
        path.write_bytes(data)
        refused += not is_readable(path)
    assert refused > 10


def torch_reference(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The official rule in PyTorch: cover (sides rounded up), antialiased bilinear, centre crop."""
    h, w = pixels.shape[:2]
    if h / w < height / width:
        size = (height, int(np.ceil(height / (h / w))))
    else:
        size = (int(np.ceil(width * (h / w))), width)
    chw = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].double()
    out = torch.nn.functional.interpolate(chw, size, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return out[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((192, 108), (128, 64)),
        ((90, 160), (128, 64)),
        ((100, 100), (64, 128)),
        ((33, 57), (64, 64)),
        ((64, 128), (64, 128)),
    ],
)
def test_crop_resize_is_the_official_preprocessing(source, target):
    pixels = RNG.integers(0, 256, (*source, 3), np.uint8)
    result = crop_resize(pixels, *target)
    assert result.shape == (*target, 3)
    # Two roundings (rows, then columns) against none.
    assert np.abs(result - torch_reference(pixels, *target)).max() <= 1.01
    frames = np.stack([pixels, pixels[::-1], pixels[:, ::-1]])
    together = crop_resize(frames, *target)
    for frame, one in zip(frames, together, strict=True):
        np.testing.assert_array_equal(one, crop_resize(frame, *target))


def test_crop_keeps_the_centre_and_the_proportions():
    yy, xx = np.mgrid[:300, :300]
    disc = (np.hypot(yy - 149.5, xx - 149.5) < 60).astype(np.uint8) * 255
    result = crop_resize(grey3(disc), 128, 64)[..., 0] > 127
    rows, columns = np.flatnonzero(result.any(1)), np.flatnonzero(result.any(0))
    # 300 becomes 128: a diameter of 120 becomes 51.2, in the middle of 128x64.
    assert abs(len(rows) - 51.2) < 1.5
    assert abs(len(columns) - 51.2) < 1.5
    assert abs(rows.mean() - 63.5) <= 0.5
    assert abs(columns.mean() - 31.5) <= 0.5


@pytest.mark.parametrize(
    ("source", "target", "place", "resized", "offset"),
    [
        ((100, 200), (64, 64), (0.0, 0.3), (64, 128), (0, 0)),
        ((100, 200), (64, 64), (1.0, 0.3), (64, 128), (0, 64)),
        ((97, 61), (64, 64), (0.2, 1.0), (102, 64), (38, 0)),  # 97 * 64 / 61 = 101.8
        ((97, 61), (64, 64), (0.5, 0.5), (102, 64), (19, 0)),
    ],
)
def test_a_crop_may_lie_anywhere(source, target, place, resized, offset):
    pixels = RNG.integers(0, 256, (*source, 3), np.uint8)
    whole = np.asarray(Image.fromarray(pixels).resize(resized[::-1], Image.Resampling.BILINEAR))
    expected = whole[offset[0] : offset[0] + target[0], offset[1] : offset[1] + target[1]]
    np.testing.assert_array_equal(Crop.plan(source, target, place).pixels(pixels), expected)


def test_crop_resize_rejects_nonsense():
    with pytest.raises(InputError, match="sizes must be positive"):
        crop_resize(RGB, 0, 64)
    assert crop_resize(np.empty((0, 40, 60, 3), np.uint8), 64, 64).shape == (0, 64, 64, 3)


def test_target_size_is_the_official_rule():
    assert target_size(1920, 1080) == (1024, 576)
    assert target_size(1080, 1920) == (576, 1024)
    assert target_size(1000, 1000) == (576, 1024)
    assert target_size(1001, 1000) == (1024, 576)
    for resolution in range(64, 1025, 64):
        assert target_size(2, 1, resolution) == (int(resolution / (9 / 16) // 64) * 64, resolution)
    assert target_size(1920, 1080, 512, "square") == (512, 512)
    assert target_size(1920, 1080, 576, "landscape") == (576, 1024)
    assert target_size(1080, 1920, 576, "portrait") == (1024, 576)
    assert target_size(1080, 1920, aspect=(448, 832)) == (832, 448)
    assert target_size(1080, 1920, aspect=(96, 128), multiple=16) == (128, 96)
    assert target_size(1080, 1920, 96, multiple=16) == (96, 160)  # 170.7 rounded down


def test_target_size_names_the_nearest():
    with pytest.raises(InputError, match=r"1000x570 does not work.*nearest is 1024x576"):
        target_size(10, 10, aspect=(1000, 570))
    with pytest.raises(InputError, match="nearest is 64x64"):
        target_size(10, 10, aspect=(1, -5))
    with pytest.raises(InputError, match="resolution 600 is not a multiple of 64; the nearest is 576"):
        target_size(10, 10, 600)
    with pytest.raises(InputError, match="unknown aspect 'wide'; use auto, portrait, landscape, square"):
        target_size(10, 10, aspect="wide")


@pytest.mark.skipif(not MEDIA.is_dir(), reason="no sample media in ../shared/media")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mimicmotion_demo1.jpg", (1920, 1080)),
        ("halfbody_open_hands.png", (1024, 1024)),
        ("musepose_ref_cartoon.png", (1216, 704)),
    ],
)
def test_real_pictures(name, size):
    pixels = read_image(MEDIA / "images" / name)
    assert pixels.shape == (*size, 3)
    height, width = target_size(*size)
    assert crop_resize(pixels, height, width).shape == (height, width, 3)
