"""Colours of HDR and wide-gamut videos in BT.709, the space of everything after decoding."""

import functools
from fractions import Fraction
from typing import cast

import cv2
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter
from jaxtyping import Float, UInt8

from mimicmotion_jax.video.ffmpeg import SWSCALE_QUALITY

WHITE = 203.0
"""Brightness of white in HDR, cd/m² (ITU-R BT.2408); it becomes, with anything brighter, the white of the result."""

PEAK = 1000.0
"""Brightness of the lightest highlights that are told apart, cd/m²; consumer HDR is graded for this."""

_HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_BT2020 = (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)
_BT709 = (0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290)
_P3 = (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)
_WIDE: dict[int, tuple[str, tuple[tuple[float, float], ...]]] = {
    ColorPrimaries.BT2020: ("BT.2020", _BT2020),
    ColorPrimaries.SMPTE431: ("DCI-P3", (*_P3, (0.314, 0.351))),
    ColorPrimaries.SMPTE432: ("Display P3", (*_P3, (0.3127, 0.3290))),
}
_BT2020_MATRICES = {Colorspace.BT2020, 10}
_UNSPECIFIED = 2
_DISPLAY_GAMMA = 2.4  # ITU-R BT.1886
_LEVEL = 8  # of the table: 64 nodes a side
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 32
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 128, 2392 / 128
_TICK = Fraction(1, 25)
_RGB48 = VideoFormat("rgb48le")


def colour_note(frame: VideoFrame) -> str | None:
    """Return what is done, or assumed, about a video's colours; None for ordinary ones that the file describes."""
    transfer, primaries = _HDR.get(frame.color_trc), _primaries(frame)
    if transfer:
        return f"is HDR ({transfer}): tone-mapped to BT.709, white at {WHITE:g} cd/m²"
    if primaries in _WIDE:
        return f"has the colours of {_WIDE[primaries][0]}: converted to BT.709"
    has_chroma = any(component.is_chroma for component in frame.format.components)
    if has_chroma and not frame.format.is_rgb and frame.colorspace in (Colorspace.DEFAULT, _UNSPECIFIED):
        return "does not say how its colours are coded: BT.601 assumed, as FFmpeg does"
    return None


class ColourMap:
    """Conversion of the frames of one HDR or wide-gamut video to RGB in BT.709, by a table of 64x64x64 colours."""

    def __init__(self, primaries: int, transfer: int, width: int, height: int):
        """Make the table, and FFmpeg's filter that looks colours up, for frames of a size in pixels."""
        self._size, self._count = (width, height), 0
        self._graph, self._to_rgb = Graph(), VideoReformatter()
        pictures, table = (
            self._graph.add_buffer(width=w, height=h, format=_RGB48, time_base=_TICK)
            for w, h in ((width, height), (_LEVEL**3, _LEVEL**3))
        )
        lookup, sink = self._graph.add("haldclut"), self._graph.add("buffersink")
        pictures.link_to(lookup, 0, 0)
        table.link_to(lookup, 0, 1)
        lookup.link_to(sink)
        self._graph.configure()
        self._pictures, self._sink = pictures, sink
        codes = _table(primaries, transfer)
        table.push(_timed(VideoFrame.from_ndarray(codes, format="rgb48le"), 0))
        table.push(None)

    @classmethod
    def of(cls, frame: VideoFrame, width: int, height: int) -> "ColourMap | None":
        """Make the conversion that the video of `frame` needs; None for ordinary colours."""
        primaries = _primaries(frame)
        if frame.color_trc not in _HDR and primaries not in _WIDE:
            return None
        return cls(primaries, frame.color_trc, width, height)

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
        """Convert a frame, scaled to the map's size."""
        width, height = self._size
        matrix = Colorspace.BT2020 if frame.colorspace in (_UNSPECIFIED, *_BT2020_MATRICES) else None
        options = {"src_colorspace": matrix, "interpolation": SWSCALE_QUALITY}
        deep = self._to_rgb.reformat(frame, width, height, "rgb48le", **options)
        self._pictures.push(_timed(deep, self._count))
        self._count += 1
        return np.asarray(cv2.convertScaleAbs(cast(VideoFrame, self._sink.pull()).to_ndarray(), alpha=1 / 257))


@functools.lru_cache(4)
def _table(primaries: int, transfer: int) -> np.ndarray:
    """Return the converted colours of a grid as FFmpeg's Hald picture, uint16 [512, 512, 3], red running fastest."""
    axis = np.linspace(0, 1, _LEVEL**2)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    mapped = to_bt709(np.stack([red, green, blue], -1), primaries, transfer)
    return np.round(65535 * mapped).astype(np.uint16).reshape(_LEVEL**3, _LEVEL**3, 3)


def to_bt709(codes: Float[np.ndarray, "*shape 3"], primaries: int, transfer: int) -> Float[np.ndarray, "*shape 3"]:
    """Convert colours to BT.709 as a display shows them, with ITU-R BT.2390's tone mapping for HDR.

    Args:
        codes: R'G'B' in [0, 1].
        primaries: FFmpeg's number of the colour primaries; BT.2020 where it is no wide gamut.
        transfer: FFmpeg's number of the transfer characteristic.

    Returns:
        R'G'B' in [0, 1] for a display of gamma 2.4.
    """
    if transfer == ColorTrc.SMPTE2084:
        linear = pq_to_light(codes) / WHITE
    elif transfer == ColorTrc.ARIB_STD_B67:
        linear = _hlg_to_light(codes) / WHITE
    else:
        linear = codes**_DISPLAY_GAMMA
    _, wide = _WIDE.get(primaries, ("", _BT2020))
    linear = (linear @ (np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(wide)).T).clip(0)
    if transfer in _HDR:
        # By the strongest of the three, so that highlights keep their hue.
        strongest = linear.max(-1, keepdims=True).clip(1e-9)
        linear = linear * _tone_mapped(strongest) / strongest
    return linear.clip(0, 1) ** (1 / _DISPLAY_GAMMA)


def pq_to_light(codes: np.ndarray) -> np.ndarray:
    """Return the light of PQ codes in [0, 1], cd/m² (SMPTE ST 2084)."""
    power = codes ** (1 / _PQ_M2)
    return 10_000 * ((power - _PQ_C1).clip(0) / (_PQ_C2 - _PQ_C3 * power)) ** (1 / _PQ_M1)


def light_to_pq(light: np.ndarray) -> np.ndarray:
    """Return the PQ codes in [0, 1] of light, cd/m² (SMPTE ST 2084)."""
    power = (light / 10_000) ** _PQ_M1
    return ((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2


def _hlg_to_light(codes: np.ndarray) -> np.ndarray:
    """Return the light of a display of `PEAK`, cd/m² (ITU-R BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return PEAK * scene * luminance[..., None] ** 0.2


def _tone_mapped(light: np.ndarray) -> np.ndarray:
    """Bring light (1 is `WHITE`) from a display of `PEAK` to one of `WHITE`; ITU-R BT.2390, section 5.4.1."""
    whole = light_to_pq(np.array(PEAK))
    top = light_to_pq(np.array(WHITE)) / whole
    knee = 1.5 * top - 0.5
    code = light_to_pq((light * WHITE).clip(0, PEAK)) / whole
    t = (code - knee) / (1 - knee)
    shoulder = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return pq_to_light(np.where(code < knee, code, shoulder) * whole) / WHITE


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Return the matrix from linear RGB with these primaries and white (x, y) to XYZ."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in chromaticities]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def _primaries(frame: VideoFrame) -> int:
    """Colour primaries; where only the matrix or the HDR transfer is given, those that go with it."""
    implied = frame.colorspace in _BT2020_MATRICES or frame.color_trc in _HDR
    if frame.color_primaries == _UNSPECIFIED and implied:
        return ColorPrimaries.BT2020
    return frame.color_primaries


def _timed(frame: VideoFrame, index: int) -> VideoFrame:
    frame.pts, frame.time_base = index, _TICK
    return frame
