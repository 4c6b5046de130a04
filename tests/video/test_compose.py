"""Panels side by side: where each lands, how they are scaled, and what labels do to the rest."""

import numpy as np
import pytest

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.image import resize


def solid(colour: tuple[int, int, int], *shape: int) -> np.ndarray:
    return np.full((*shape, 3), colour, np.uint8)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_layout():
    red, green = solid(RED, 4, 60, 40), solid(GREEN, 4, 30, 30)
    result = side_by_side([red, green], gap=6)
    # Heights 60; widths 40 and 60; three gaps across, two down.
    assert result.shape == (4, 6 + 60 + 6, 6 + 40 + 6 + 60 + 6, 3)
    assert (result[:, 6:66, 6:46] == RED).all()
    assert (result[:, 6:66, 52:112] == GREEN).all()
    rest = np.ones(result.shape[1:3], bool)
    rest[6:66, 6:46] = rest[6:66, 52:112] = False
    ground = result[0, 0, 0]
    assert ground.max() < 40
    assert (result[:, rest] == ground).all()


def test_a_still_picture_stands_beside_the_moving_ones():
    rng = np.random.default_rng(0)
    still, video = rng.integers(0, 256, (30, 20, 3), np.uint8), rng.integers(0, 256, (5, 60, 40, 3), np.uint8)
    result = side_by_side([still, video, still[None]], gap=0)
    assert result.shape == (5, 60, 120, 3)
    np.testing.assert_array_equal(result[:, :, 40:80], video)
    for frame in result:
        np.testing.assert_array_equal(frame[:, :40], resize(still, 60, 40))
        np.testing.assert_array_equal(frame[:, 80:], frame[:, :40])
    assert len(side_by_side([still, still])) == 1


@pytest.mark.parametrize("height", [33, 64, 101])
@pytest.mark.parametrize("gap", [0, 3])
def test_sides_are_even(height, gap):
    panels = [solid(BLUE, 2, 50, 37), solid(RED, 50, 41)]
    for labels in (None, ["one", "two"]):
        result = side_by_side(panels, height=height, gap=gap, labels=labels)
        assert result.shape[1] % 2 == result.shape[2] % 2 == 0
        assert (result[:, gap : gap + height, gap : gap + round(37 * height / 50)] == BLUE).all()


def test_labels_leave_the_panels_alone_and_sit_under_them():
    panels = [solid(RED, 2, 200, 150), solid(GREEN, 2, 200, 150)]
    plain = side_by_side(panels)
    labelled = side_by_side(panels, labels=["reference", ""])
    np.testing.assert_array_equal(labelled[:, :208], plain[:, :208])
    strip = labelled[0, 208:].astype(int)
    assert 10 < len(strip) < 40
    rows, columns = np.nonzero(np.abs(strip - strip[0, 0]).max(-1) > 60)
    # Centred under the first panel, clear of the picture; nothing under the second.
    assert abs((columns.min() + columns.max()) / 2 - (8 + 75)) < 4
    assert columns.max() < 158
    assert rows.min() > 2
    np.testing.assert_array_equal(labelled[0], labelled[1])


def test_a_long_label_is_made_to_fit():
    panels = [solid(RED, 1, 400, 120), solid(GREEN, 1, 400, 120)]
    strip = side_by_side(panels, labels=["a rather long label", "b"])[0, 408:].astype(int)
    text = np.abs(strip - strip[0, 0]).max(-1) > 60
    assert text[:, 8:128].any()
    assert not text[:, 128:136].any()


def test_pieces_fit_together():
    video = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3), np.uint8)
    still = solid(RED, 50, 50)
    whole = side_by_side([still, video], labels=["a", "b"])
    pieces = [side_by_side([still, video[i : i + 2]], labels=["a", "b"]) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_refused():
    with pytest.raises(InputError, match="nothing to put"):
        side_by_side([])
    with pytest.raises(InputError, match="have 3 and 5 frames"):
        side_by_side([solid(RED, 3, 20, 20), solid(RED, 5, 20, 20), solid(RED, 1, 20, 20)])
    with pytest.raises(InputError, match="2 labels for 1 panels"):
        side_by_side([solid(RED, 20, 20)], labels=["a", "b"])
    with pytest.raises(InputError, match=r"not shape \(3, 20, 20, 4\)"):
        side_by_side([np.zeros((3, 20, 20, 4), np.uint8)])
