"""Colours of pictures: profiles written here by hand, and what the formula says of them; formats and animations."""

import io
import struct
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.image import is_still, read_image

pillow_heif.register_heif_opener()
D50 = (0.9642, 1.0, 0.8249)
# Columns of Display P3 in D50's XYZ, as Apple's profile has them, and to linear sRGB by the primaries of both.
P3_COLUMNS = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
P3_TO_SRGB = np.array([[1.2249402, -0.2249402, 0], [-0.0420570, 1.0420570, 0], [-0.0196376, -0.0786361, 1.0982736]])
SRGB_CURVE = (
    b"para"
    + bytes(4)
    + struct.pack(">HH5i", 3, 0, *(round(x * 65536) for x in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
)
GAMMA_1_8 = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256))


def xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(x * 65536) for x in values))


def profile(space: bytes, pcs: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    """An ICC profile of version 4: header, table of tags, tags."""
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + table + data
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), b"none", 0x04200000, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + xyz(D50)[8:]
    return header.ljust(128, b"\0") + body


P3 = profile(
    b"RGB ",
    b"XYZ ",
    {b"wtpt": xyz(D50)}
    | {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), P3_COLUMNS, strict=True)}
    | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), SRGB_CURVE),
)
GREY_1_8 = profile(b"GRAY", b"XYZ ", {b"wtpt": xyz(D50), b"kTRC": GAMMA_1_8})


def cmyk_profile() -> bytes:
    """A printer whose black alone counts, linear in L*."""
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = bytes(range(256))
    corners = b"".join(bytes([0 if corner % 2 else 255, 128, 128]) for corner in range(16))
    return profile(b"CMYK", b"Lab ", {b"wtpt": xyz(D50), b"A2B0": lut + ramp * 4 + corners + ramp * 3}, b"prtr")


def to_linear(levels):
    x = np.asarray(levels) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def to_levels(linear):
    x = np.clip(linear, 0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def as_srgb(pixels):
    """Display P3 to sRGB by the formula."""
    return to_levels(to_linear(pixels) @ P3_TO_SRGB.T)


# Smooth, so that lossy formats keep it: every hue, grey to saturated.
COLOURS = np.asarray(
    Image.fromarray(np.array([[[h, s, 220] for h in range(0, 250, 8)] for s in range(0, 250, 12)], np.uint8), "HSV")
    .convert("RGB")
    .resize((128, 96), Image.Resampling.BICUBIC)
)


def near(pixels, expected, most=2.0, mean=1.0):
    difference = np.abs(pixels.astype(float) - expected)
    assert difference.mean() <= mean
    assert np.percentile(difference, 99) <= most


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "avif", "heic"])
def test_display_p3_becomes_srgb_in_every_format(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "heic": {"chroma": 444, "quality": 98}}
    options = options.get(suffix, {"quality": 98, "subsampling": "4:4:4"})
    Image.fromarray(COLOURS).save(path, icc_profile=P3, **options)
    near(read_image(path), as_srgb(COLOURS), most=12 if suffix in ("jpg", "avif", "heic") else 2, mean=3)
    assert np.abs(as_srgb(COLOURS) - COLOURS).mean() > 8  # what ignoring the profile would miss


def test_an_srgb_profile_changes_nothing(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=srgb)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)


def test_profiles_of_grey_and_transparent_pictures(tmp_path):
    grey = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    Image.fromarray(grey).save(tmp_path / "grey.png", icc_profile=GREY_1_8)
    near(read_image(tmp_path / "grey.png")[..., 0], to_levels((grey / 255) ** 1.8), most=3)
    alpha = np.tile(np.linspace(0, 255, 128).round().astype(np.uint8), (96, 1))
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "alpha.png", icc_profile=P3)
    share = alpha[..., None] / 255
    near(read_image(tmp_path / "alpha.png"), as_srgb(COLOURS) * share + 255 * (1 - share))
    palette = Image.fromarray(COLOURS // 64 * 64).quantize(200)
    palette.save(tmp_path / "palette.png", icc_profile=P3)
    near(read_image(tmp_path / "palette.png"), as_srgb(np.asarray(palette.convert("RGB"))))


def test_cmyk_follows_its_profile(tmp_path):
    inks = np.zeros((32, 256, 4), np.uint8)
    inks[..., 3] = np.arange(256)
    for suffix, options in (("tiff", {}), ("jpg", {"quality": 100})):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(inks, "CMYK").save(path, icc_profile=cmyk_profile(), **options)
        lightness = 100 * (1 - np.arange(256) / 255)
        f = (lightness + 16) / 116
        y = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
        near(read_image(path), np.tile(to_levels(y)[None, :, None], (32, 1, 3)), most=4)


def test_lab_is_read(tmp_path):
    lab = np.zeros((20, 20, 3), np.uint8)
    lab[...] = (128, 0, 0)  # Pillow stores a* and b* as signed bytes
    Image.frombytes("LAB", (20, 20), lab.tobytes()).save(tmp_path / "a.tiff")
    near(read_image(tmp_path / "a.tiff"), np.full((20, 20, 3), 119.6))


def test_damaged_and_foreign_profiles_are_ignored_and_said(tmp_path):
    for name, content in {"damaged": b"no profile", "short": P3[:200], "foreign": cmyk_profile()}.items():
        Image.fromarray(COLOURS).save(tmp_path / f"{name}.png", icc_profile=content)
        with collect_assumptions() as notes:
            np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), COLOURS)
        assert len(notes) == (name != "foreign")


def with_nclx(path, primaries, transfer):
    """Overwrite the colour description of a file, `colr` box with `nclx`."""
    head, box, tail = path.read_bytes().partition(b"colrnclx")
    assert box
    path.write_bytes(head + box + struct.pack(">HH", primaries, transfer) + tail[4:])


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_colours_named_by_number(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"chroma": 444} if suffix == "heic" else {"subsampling": "4:4:4"}
    Image.fromarray(COLOURS).save(path, quality=98, **options)
    near(read_image(path), COLOURS, most=12, mean=3)
    with_nclx(path, 12, 13)
    near(read_image(path), as_srgb(COLOURS), most=12, mean=3)
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        with_nclx(path, 9, transfer)
        with pytest.raises(InputError, match=rf"a\.{suffix} is an HDR picture \({name}\).*save it as SDR"):
            read_image(path)


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_heic_is_turned_once(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "a.heic", quality=98, chroma=444, exif=exif.tobytes())
    near(read_image(tmp_path / "a.heic"), np.rot90(COLOURS, turn), most=12, mean=3)


@pytest.mark.parametrize("orientation", [2, 6])
def test_avif_is_turned_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "a.avif", quality=98, subsampling="4:4:4", exif=exif)
    near(
        read_image(tmp_path / "a.avif"),
        COLOURS[:, ::-1] if orientation == 2 else np.rot90(COLOURS, -1),
        most=12,
        mean=3,
    )


def test_sixteen_bits_of_colour(tmp_path):
    import cv2

    deep = COLOURS[..., ::-1].astype(np.uint16) * 257
    for suffix in ("png", "tiff"):
        assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), deep)
        near(read_image(tmp_path / f"a.{suffix}"), COLOURS, most=1)


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "phone.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    kinds = {
        "phone.heic": (None, r'a HEIC picture; .*pip install "mimicmotion_jax\[heic\]"'),
        "a.jpg": (b"\xff\x0a" + bytes(40), "a JPEG XL picture; save it as JPEG or PNG"),
        "b.png": (b"8BPS" + bytes(40), "a Photoshop file"),
        "c.dng": (b"II*\0" + bytes(40), "a camera's raw file"),
        "d.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>" + bytes(40), "an SVG drawing"),
    }
    for name, (content, message) in kinds.items():
        if content:
            (tmp_path / name).write_bytes(content)
        for read in (read_image, open_video):
            with pytest.raises(InputError, match=f"{name} is {message}"):
                read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["webp", "png", "avif"])
def test_animations_are_videos(tmp_path, suffix):
    """All frames, transparency over white, and a long hold that is held: 100 ms, 100, 300, 100 at ten per second."""
    path, levels = tmp_path / f"a.{suffix}", (10, 90, 170, 250)
    frames = [np.full((48, 64, 4), level, np.uint8) for level in levels]
    for frame in frames:
        frame[:24, :, 3], frame[24:, :, 3] = 0, 255
    pictures = [Image.fromarray(frame) for frame in frames]
    options = {"webp": {"lossless": True, "exact": True}, "avif": {"quality": 95}, "png": {"blend": 0, "disposal": 1}}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 100, 300, 100], **options[suffix])
    assert not is_still(path)
    video = open_video(path)
    assert (video.fps, video.num_frames, video.width, video.height) == (10, 6, 64, 48)
    read = list(video.frames())
    shown = [levels[index] for index in (0, 1, 2, 2, 2, 3)]
    for frame, level in zip(read, shown, strict=True):
        near(frame[28:], np.full((20, 64, 3), level), most=6, mean=3)
        near(frame[:20], np.full((20, 64, 3), 255), most=6, mean=3)
    np.testing.assert_array_equal(list(video.frames(2, 1))[1], read[3])
    np.testing.assert_array_equal(read_image(path), read[0])


def test_rates_of_animations(tmp_path):
    for duration, fps in ((33, 30), (40, 25), (42, 24), (17, 60), (5, 60), (0, 10), (200, 5)):
        pictures = [Image.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (0, 128, 255)]
        pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=duration)
        assert open_video(tmp_path / "a.webp").fps == fps, duration


def test_a_cut_animation_is_an_input_error(tmp_path):
    buffer = io.BytesIO()
    pictures = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8)) for n in range(4)]
    pictures[0].save(buffer, "PNG", save_all=True, append_images=pictures[1:], duration=40)
    (tmp_path / "a.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
    with pytest.raises(InputError):
        list(open_video(tmp_path / "a.png").frames())


def test_enormous_pictures_are_refused_before_they_are_decoded(tmp_path):
    Image.new("1", (64, 64)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + content[24:29]
    import zlib

    (tmp_path / "a.png").write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    for read in (read_image, open_video):
        with pytest.raises(InputError, match="too large, a picture may have 178 million pixels"):
            read(tmp_path / "a.png")
