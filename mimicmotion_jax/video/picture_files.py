"""Opening of picture files with Pillow: formats that are read, names of those that are not, frames of animations."""

import contextlib
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

from PIL import Image

from mimicmotion_jax.runtime.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
"""Pillow's names of the formats we read; its other plugins also claim videos and scientific files."""

ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats that may be animations. A phone's JPEG may hold several pictures (MPO), a TIFF several pages."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, RuntimeError)
"""Exceptions of Pillow's decoders on damaged files; each is the file's fault, not ours."""

_INSTALL_HEIC = 'a HEIC picture; to read it, run pip install "mimicmotion_jax[heic]", or save it as JPEG or PNG'
_CONVERT = "; save it as JPEG or PNG"
_RAW_SUFFIXES = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx"), _INSTALL_HEIC),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture; to read it, install Pillow 11.3 or later"),
    b"crx ": "a camera's raw file" + _CONVERT,
}
_BEGINNINGS = {
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture" + _CONVERT,
    b"\xff\x0a": "a JPEG XL picture" + _CONVERT,
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 picture" + _CONVERT,
    b"8BPS": "a Photoshop file" + _CONVERT,
    b"%PDF": "a PDF file" + _CONVERT,
    b"<svg": "an SVG drawing" + _CONVERT,
    b"<?xml": "an SVG drawing" + _CONVERT,
    b"v/1\x01": "an OpenEXR picture" + _CONVERT,
    b"#?RADIANCE": "a Radiance HDR picture" + _CONVERT,
}
_COLOUR_BOX = b"colrnclx"
_DEFAULT_DURATION = 100  # milliseconds of a frame that says 0, as browsers show it
_COMMON_RATES = (24, 25, 30, 50, 60)
_MAX_RATE = 60


@contextlib.contextmanager
def open_picture(path: Path | str | IO[bytes]) -> Iterator[Image.Image]:
    """Open a picture with Pillow; `info["nclx_profile"]` says the colours of HEIC and AVIF files.

    Raises:
        OSError: and the others of `DAMAGED` and Pillow's `DecompressionBombError`.
    """
    with warnings.catch_warnings():
        # From half of `image.MAX_PIXELS` on Pillow warns of what we accept.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=_supported())
    if image.format == "AVIF" and isinstance(path, Path | str):
        image.info["nclx_profile"] = _read_nclx(path)
    with image:
        yield image


def name_unread(path: Path) -> str | None:
    """Name the format of a picture that cannot be read here, and what to do; None for anything else."""
    if path.suffix.lower() in _RAW_SUFFIXES:
        return "a camera's raw file" + _CONVERT
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        name = "AVIF" if head[8:12] in (b"avif", b"avis") else "HEIF"
        return None if name in _supported() else _BRANDS.get(head[8:12])
    return next((kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning)), None)


def read_timing(path: Path) -> tuple[Fraction, tuple[int, ...]]:
    """Lay the pictures of an animation onto a grid in time, whose steps are as long as its shortest picture.

    Returns:
        frames per second, at most 60, and the number of the picture that is shown in each frame.

    Raises:
        InputError: damage.
    """
    with explain_damage(path), open_picture(path) as image:
        durations = [_duration(image, number) for number in _numbers(image)]
    shortest = max(min(durations), 1000 / _MAX_RATE)
    common = [rate for rate in _COMMON_RATES if abs(1000 / rate - shortest) < 0.5]
    rate = Fraction(common[0]) if common else (1000 / Fraction(shortest)).limit_denominator(1000)
    steps = [max(1, round(duration / shortest)) for duration in durations]
    return rate, tuple(number for number, count in enumerate(steps) for _ in range(count))


def animation_pictures(path: Path) -> Iterator[Image.Image]:
    """Yield the pictures of an animation, whole, one in memory at a time.

    Raises:
        InputError: damage.
    """
    with explain_damage(path), open_picture(path) as image:
        for number in _numbers(image):
            image.seek(number)
            yield image.copy()


@contextlib.contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Report what Pillow raises on damaged files as an `InputError`; one that lacks the file's name gets it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except DAMAGED:
        raise InputError(f"{path} is damaged; copy or download it again.") from None


def _numbers(image: Image.Image) -> range:
    """Numbers of the pictures; the first of a PNG may be for programs that show no animations."""
    return range(1 if image.info.get("default_image") else 0, getattr(image, "n_frames", 1))


def _duration(image: Image.Image, number: int) -> float:
    image.seek(number)
    image.load()
    return float(image.info.get("duration") or _DEFAULT_DURATION)


def _supported() -> list[str]:
    """Those of `FORMATS` that this installation reads."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _read_nclx(path: Path | str) -> dict[str, int]:
    """Colour description of an AVIF file, which Pillow does not report."""
    with open(path, "rb") as file:
        _, found, after = file.read(2**16).partition(_COLOUR_BOX)
    if not found or len(after) < 4:
        return {}
    return {
        "color_primaries": int.from_bytes(after[:2], "big"),
        "transfer_characteristics": int.from_bytes(after[2:4], "big"),
    }
