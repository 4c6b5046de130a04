"""HDR and wide-gamut videos against FFmpeg's zscale, which computes the same by other code."""

import numpy as np
import pytest
from ffmpeg_binary import ffmpeg, ffmpeg_frames
from video_clips import ramp, write_clip

from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.hdr import light_to_pq, pq_to_light, to_bt709

PATCHES = np.array([[x, y, z] for x in (20, 100, 180) for y in (20, 100, 180) for z in (20, 100, 180)], np.uint8)
PASTELS = 90 + PATCHES // 2  # inside BT.709
CODES = np.concatenate([PASTELS - 60, np.arange(0, 250, 12, dtype=np.uint8)[:, None].repeat(3, 1)])
GREYS = np.ptp(CODES, 1) == 0
TO_LINEAR = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709"
TO_BT709 = "zscale=t=bt709:m=gbr:r=pc,format=gbrp"


def patches(path, primaries, transfer, matrix, codes):
    """Write patches of these R'G'B' codes, 16 pixels wide, losslessly in 10 bits with these tags."""
    picture = np.repeat(np.repeat(codes[None], 16, 0), 16, 1)
    height, width = picture.shape[:2]
    (path.with_suffix(".raw")).write_bytes(picture.tobytes())
    tags = f"setparams=color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}:range=tv"
    coding = "bt709" if matrix == "bt709" else "bt2020"
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", path.with_suffix(".raw")),
        *("-vf", f"scale=out_color_matrix={coding},format=yuv444p10le,{tags}"),
        *("-c:v", "libx265", "-x265-params", "lossless=1:log-level=none", path),
    )
    return path


def colours(frame):
    return frame[8, 8::16].astype(int)


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_tone_mapped(tmp_path, transfer, name):
    path = patches(tmp_path / "a.mp4", "bt2020", transfer, "bt2020nc", CODES)
    with collect_assumptions() as lines:
        reader = open_video(path)
    assert lines == [f"{path} is HDR ({name}): tone-mapped to BT.709, white at 203 cd/m²."]
    (frame,) = reader.frames()
    size = reader.width, reader.height
    (exact,) = ffmpeg_frames(path, *size, f"{TO_LINEAR},{TO_BT709}")  # not tone-mapped: cut off above 203 cd/m²
    found, exact, raw = map(colours, (frame, exact, ffmpeg_frames(path, *size)[0]))
    # Below the knee, 88 of 203 cd/m², nothing is bent: code 255 * (88 / 203) ** (1 / 2.4) = 180. (Where a colour leaves
    # BT.709, its weakest part is dark, and the table of colours coarser than that.)
    dark = (exact.max(1) < 175) & (exact.min(1) > 30)
    error = np.abs(found - exact)
    assert error[dark & GREYS].max() <= 2
    # zscale applies HLG's gamma to each of the three, ITU-R BT.2100 to their luminance.
    assert error[dark].mean() < (1.5 if name == "PQ" else 6)
    assert np.abs(raw - exact)[dark].mean() > 5
    # Above it greys keep their order, and stay below white where FFmpeg cuts them off.
    cut_off = found[GREYS & (exact.min(1) == 255)][:, 0]
    assert len(set(cut_off)) >= 2
    assert 180 < cut_off.min() < 250


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
def test_tags_of_the_container_count(tmp_path, container):
    coded = patches(tmp_path / "a.mp4", "bt2020", "smpte2084", "bt2020nc", CODES)
    plain = patches(tmp_path / "plain.mp4", "unknown", "unknown", "unknown", CODES)
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    tagged = tmp_path / f"b.{container}"
    ffmpeg("-i", plain, "-c", "copy", *tags, tagged)
    np.testing.assert_array_equal(*(next(open_video(path).frames()) for path in (coded, tagged)))


@pytest.mark.parametrize("primaries", ["bt2020", "smpte432", "smpte431"])
def test_wide_gamuts_are_converted(tmp_path, primaries):
    matrix, transfer = ("bt2020nc", "bt2020-10") if primaries == "bt2020" else ("bt709", "bt709")
    path = patches(tmp_path / "a.mp4", primaries, transfer, matrix, PASTELS)
    with collect_assumptions() as lines:
        reader = open_video(path)
    (line,) = lines
    assert line.endswith("converted to BT.709.")
    (frame,) = reader.frames()
    (exact,) = ffmpeg_frames(path, reader.width, reader.height, "zscale=t=bt709:p=bt709:m=gbr:r=pc,format=gbrp")
    found, exact = colours(frame), colours(exact)
    assert np.abs(found - exact).mean() < 1
    assert np.abs(found - exact).max() <= 8
    assert np.abs(PASTELS.astype(int) - exact).max() > 10


def test_the_curves_are_those_of_the_standards():
    # SMPTE ST 2084: code 0.5 is 92.2 cd/m², 1 is 10,000. BT.2408: HLG's 75 % and PQ's 58 % are 203 cd/m².
    np.testing.assert_allclose(pq_to_light(np.array([0, 0.5, 1.0])), [0, 92.2457, 10_000], atol=1e-3)
    np.testing.assert_allclose(light_to_pq(np.array([203.0])), [0.5807], atol=1e-4)
    grey = np.linspace(0, 1, 101)[:, None].repeat(3, 1)
    for transfer in (16, 18):
        mapped = to_bt709(grey, 9, transfer)
        assert (np.diff(mapped[:, 0]) >= 0).all()
        assert mapped.max() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(mapped, mapped[:, :1].repeat(3, 1), atol=1e-3)  # grey stays grey
    pq, hlg = to_bt709(np.array([[0.5807] * 3, [0.75] * 3]), 9, 16)[0], to_bt709(np.array([[0.75] * 3]), 9, 18)[0]
    np.testing.assert_allclose(pq, hlg, atol=0.005)


def test_ordinary_colours_are_left_alone(tmp_path):
    path = write_clip(tmp_path / "plain.mp4", ramp(2))
    tagged = tmp_path / "tagged.mp4"
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", "h264_metadata=matrix_coefficients=6:colour_primaries=6", tagged)
    for file, expected in (
        (path, [f"{path} does not say how its colours are coded: BT.601 assumed, as FFmpeg does."]),
        (tagged, []),
    ):
        with collect_assumptions() as lines:
            reader = open_video(file)
        assert lines == expected
        shown = np.stack(list(reader.frames())).astype(int)
        assert np.abs(shown - ffmpeg_frames(file, 128, 96)).mean() < 1
