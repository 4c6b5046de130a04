"""Protocols: their hash, sequences and regions, with numbers by hand."""

import dataclasses

import numpy as np
import pytest

from mimicmotion_jax import InputError
from mimicmotion_jax.evaluation import protocols
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.protocols import PROTOCOLS, get_protocol
from mimicmotion_jax.evaluation.regions import central_square, compared_regions
from mimicmotion_jax.evaluation.sequences import find_sequences
from mimicmotion_jax.synthetic.dancer import demo_motion

OTHER = {
    "name": "other",
    "source": "elsewhere",
    "sequences": ("335",),
    "inputs": "square",
    "region": "picture",
    "size": 100,
    "resolution": 64,
    "image_fps": 24.0,
    "foreground_threshold": 31,
}


def test_every_field_changes_the_hash(monkeypatch):
    protocol = PROTOCOLS["tiktok"]
    assert {field.name for field in dataclasses.fields(protocol)} == set(OTHER)
    hashes = [dataclasses.replace(protocol, **{name: value}).sha256 for name, value in OTHER.items()]
    assert len({protocol.sha256, *hashes}) == len(OTHER) + 1
    assert dataclasses.replace(protocol).sha256 == protocol.sha256
    monkeypatch.setattr(protocols, "RULES", protocols.RULES + 1)
    assert dataclasses.replace(protocol).sha256 not in hashes
    assert len({protocol.sha256 for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(InputError, match="choose tiktok, disco, synthetic"):
        get_protocol("tictoc")


@pytest.fixture(scope="module")
def tiktok(tmp_path_factory, draw, write):
    """A folder in the dataset's layout: images, masks and densepose per sequence."""
    folder = tmp_path_factory.mktemp("TikTok_dataset")
    for number in range(334, 342):
        frames, _ = draw(number, num_frames=3, height=54, width=30)
        for part in ("images", "masks", "densepose"):
            write(folder / f"{number:05d}" / part, frames if part == "images" else 0 * frames)
    return folder


@pytest.mark.parametrize(("name", "last"), [("tiktok", 340), ("disco", 339)])
def test_tiktok_sequences(name, last, tiktok, draw, tmp_path):
    failures = Failures(tmp_path / "log")
    found = find_sequences(tiktok, PROTOCOLS[name], failures, progress=False)
    assert [sequence.name for sequence in found] == [f"{number:05d}" for number in range(335, last + 1)]
    expected, _ = draw(335, num_frames=3, height=54, width=30)
    np.testing.assert_array_equal(np.stack(list(found[0].reader.frames())), expected)
    assert len(find_sequences(tiktok, PROTOCOLS["synthetic"], failures, progress=False)) == 8


def test_squares_of_tiktok_end_to_end(tiktok, tmp_path, score):
    """Videos compared with themselves: squares of 30 x 30 pixels at 576 x 576."""
    results = score(tiktok, tiktok, tmp_path / "out", "tiktok", num_frames=1)
    assert [row["size"] for row in results["sequences"]] == [[576, 576]] * 6
    assert results["summary"]["generated"] == {"ssim": 1.0, "psnr": 100.0}
    assert results["sequences"][0]["frames"] == {"true": 2, "generated": 2, "compared": 1}


@pytest.mark.parametrize(
    ("true", "generated", "expected_true", "expected_generated"),
    [
        # TikTok at the model's size: 604 columns show 1074 of 1080 rows; squares in the middle.
        ((1080, 604), (1024, 576), ((238, 0), (604, 604)), ((224, 0), (576, 576))),
        # Landscape out of 4:3: 640 columns show 360 rows, from row 60 on; the square begins at column 140.
        ((480, 640), (576, 1024), ((60, 140), (360, 360)), ((0, 224), (576, 576))),
        # A square video by another method shows the square of the truth as it is.
        ((1080, 604), (256, 256), ((238, 0), (604, 604)), ((0, 0), (256, 256))),
    ],
)
def test_central_squares(true, generated, expected_true, expected_generated):
    regions = compared_regions(PROTOCOLS["tiktok"], true, generated)
    assert [(region.crop.offset, region.crop.target) for region in regions] == [expected_true, expected_generated]
    assert [region.size for region in regions] == [(576, 576)] * 2
    picture = np.zeros((*true, 3), np.uint8)
    (top, left), (height, width) = expected_true
    picture[top : top + height, left : left + width] = 200
    assert (regions[0].frames([picture]) == 200).all()


def test_whole_pictures():
    true, generated = compared_regions(PROTOCOLS["synthetic"], (96, 64), (96, 64))
    assert true == generated
    picture = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    np.testing.assert_array_equal(true.frames([picture])[0], picture)
    # Generated wider than the truth: 64 columns show 48 rows, from row 24 on, and the truth's size counts.
    true, generated = compared_regions(PROTOCOLS["synthetic"], (96, 64), (192, 256))
    assert (true.crop.offset, true.crop.target, true.size) == ((24, 0), (48, 64), (48, 64))
    assert (generated.crop.offset, generated.crop.target, generated.size) == ((0, 0), (192, 256), (48, 64))


def test_keypoints_follow_into_the_square():
    poses = demo_motion(1, width=604, height=1080)
    inside = central_square((1080, 604)).keypoints(poses)
    rows = poses.body[..., 1] * 1080 - 238
    np.testing.assert_allclose(inside.body[..., 1] * 604, rows, atol=1e-3)
    np.testing.assert_allclose(inside.body[..., 0], poses.body[..., 0], atol=1e-6)
    assert (inside.width, inside.height) == (604, 604)
