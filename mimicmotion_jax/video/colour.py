"""Colours of still pictures: every mode and colour space becomes 8-bit sRGB over white."""

import functools
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms

from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.runtime.errors import InputError

_PROFILE_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
_SAME = 1  # levels that a profile may differ from sRGB and still be it

# Linear RGB of BT.2020 (9) and Display P3 (12) to linear sRGB, by the numbers of primaries in ISO/IEC 23091-2 (`nclx`).
_TO_SRGB = {
    9: [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ],
    12: [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]],
}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_ROWS = 256  # converted at once


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture to 8-bit sRGB, laid over white.

    An ICC profile counts, else the primaries that `info["nclx_profile"]` names; without either the numbers are taken as
    they are.

    Raises:
        InputError: real numbers that are no brightness, or an HDR picture.
    """
    profile, nclx = image.info.get("icc_profile"), image.info.get("nclx_profile") or {}
    if transfer := _HDR_TRANSFERS.get(nclx.get("transfer_characteristics", 0)):
        raise InputError(f"is an HDR picture ({transfer}), whose brightness does not fit 8 bits; save it as SDR.")
    image = _to_eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode == "LA" else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if profile or image.mode == "LAB":
        image = _by_profile(image, profile)
    elif image.mode == "CMYK":
        assume("a CMYK picture has no colour profile: its colours are converted roughly.")
    elif (matrix := _TO_SRGB.get(nclx.get("color_primaries", 0))) is not None:
        image = Image.fromarray(_by_matrix(np.asarray(image.convert("RGB")), np.array(matrix, np.float32)))
    image = _as_rgb(image)
    if alpha is not None:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_profile(image: Image.Image, content: bytes | None) -> Image.Image:
    """Convert by an ICC profile; a picture in L*a*b* needs none."""
    try:
        # The colour space is in bytes 16 to 19 of the header.
        mode = _PROFILE_MODES[content[16:20]] if content else "LAB"
        if mode == "RGB" and image.mode not in ("CMYK", "LAB"):
            image = _as_rgb(image)
        if image.mode != mode:  # a profile of another colour space than the picture's
            return image
        transform = ImageCms.buildTransform(
            io.BytesIO(content) if content else ImageCms.createProfile("LAB"),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return image if mode == "RGB" and _is_srgb(transform) else transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        assume("a picture's colour profile is damaged: its colours are taken for sRGB.")
        return image


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    colours = _colour_grid()
    changed = np.asarray(transform.apply(Image.fromarray(colours)))
    return int(np.abs(changed.astype(int) - colours).max()) <= _SAME


@functools.cache
def _colour_grid() -> UInt8[np.ndarray, "81 9 3"]:
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(81, 9, 3)


def _by_matrix(pixels: UInt8[np.ndarray, "h w 3"], matrix: Float[np.ndarray, "3 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert between primaries; both sides have sRGB's transfer function."""
    levels = np.arange(256, dtype=np.float32) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(np.float32)
    output = np.empty_like(pixels)
    for start in range(0, len(pixels), _ROWS):
        x = np.clip(linear[pixels[start : start + _ROWS]] @ matrix.T, 0, 1)
        y = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
        output[start : start + _ROWS] = np.round(y * 255)
    return output


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16-bit greyscale to 255 instead of scaling it; 65535 / 257 is 255.
        samples = np.clip(np.asarray(image, np.float32), 0, 65535)
        return Image.fromarray(np.round(samples / 257).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_from_floats(np.asarray(image)))
    return image


def _from_floats(samples: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Brightness in [0, 1], or up to 255 where it exceeds 1; Pillow would make the former black."""
    low, high = samples.min(), samples.max()
    if not 0 <= low <= high <= 255:
        raise InputError(f"holds numbers from {low:g} to {high:g}, not brightness; save it with 8 or 16 bits.")
    return np.round(samples * (255 if high <= 1 else 1)).astype(np.uint8)
