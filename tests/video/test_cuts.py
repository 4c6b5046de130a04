"""Cuts and stills, in videos whose cuts are known: rooms of random shapes in which a bright figure moves."""

import cv2
import numpy as np
import pytest

from mimicmotion_jax.video.cuts import CutDetector, split_at
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer


def room(seed, height=120, width=160):
    """A wall with some thirty rectangles on it."""
    random = np.random.default_rng(seed)
    picture = np.full((height, width, 3), random.integers(40, 200, 3), np.uint8)
    for _ in range(30):
        top, left = random.integers(0, height - 10), random.integers(0, width - 10)
        rows, columns = random.integers(8, height // 2), random.integers(8, width // 3)
        picture[top : top + rows, left : left + columns] = random.integers(0, 255, 3)
    return picture


def shot(seed, num_frames, figure=True, **size):
    """Frames of a figure that sways in a room, with the camera's noise."""
    random = np.random.default_rng(seed + 100)
    background = room(seed, **size)
    height, width = background.shape[:2]
    for frame in range(num_frames):
        picture = background.copy()
        if figure:
            centre = (int(width * (0.5 + 0.2 * np.sin(frame / 6 + seed))), int(height * 0.55))
            cv2.ellipse(picture, centre, (width // 9, height // 3), 10 * np.sin(frame / 3), 0, 360, (235, 200, 180), -1)
        yield np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def found(frames) -> CutDetector:
    detector = CutDetector()
    for _ in detector.watch(frames):
        pass
    return detector


def joined(*parts):
    return [frame for part in parts for frame in part]


@pytest.mark.parametrize("size", [{}, {"height": 160, "width": 90}])
@pytest.mark.parametrize("seed", range(6))
def test_cuts_to_other_rooms_are_found(seed, size):
    frames = joined(*(shot(3 * seed + k, length, **size) for k, length in enumerate((17, 9, 30))))
    assert found(frames).cuts() == [17, 26]


@pytest.mark.parametrize("change", ["mirrored", "closer", "black"])
def test_other_views_of_one_room_are_cuts(change):
    there = list(shot(1, 40))
    other = {
        "mirrored": lambda frame: np.ascontiguousarray(frame[:, ::-1]),
        "closer": lambda frame: np.ascontiguousarray(frame[20:100, 30:130]),
        "black": np.zeros_like,
    }[change]
    assert found([*there[:20], *map(other, there[20:])]).cuts() == [20]


@pytest.mark.parametrize("crf", [18, 35])
def test_cuts_are_found_in_a_video_file(tmp_path, crf):
    with open_writer(tmp_path / "a.mp4", 25, 160, 120, crf=crf, progress=False) as writer:
        writer.write(np.stack(joined(shot(1, 30), shot(2, 25))))
    assert found(open_video(tmp_path / "a.mp4").frames()).cuts() == [30]


def brighter(frame, gain):
    return np.clip(frame * np.float32(gain), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "event", ["nothing", "flash", "lights off", "red light", "fade in", "pan", "shake", "one frame"]
)
@pytest.mark.parametrize("seed", range(3))
def test_light_and_camera_are_no_cuts(event, seed):
    frames = list(shot(seed, 40))
    random = np.random.default_rng(seed)
    if event == "flash":
        frames[20:23] = [brighter(frame, 1.8) for frame in frames[20:23]]
    elif event == "lights off":
        frames[20:] = [brighter(frame, 0.5) for frame in frames[20:]]
    elif event == "red light":
        frames[20:] = [brighter(frame, (1.2, 0.5, 0.5)) for frame in frames[20:]]
    elif event == "fade in":
        frames = [brighter(frame, min(1, k / 20)) for k, frame in enumerate(frames)]
    elif event == "pan":
        frames = [np.roll(frame, -4 * k, axis=1)[:, :100].copy() for k, frame in enumerate(frames)]
    elif event == "shake":
        frames = [
            frame[4 + a : 116 + a, 4 + b : 156 + b].copy()
            for frame, (a, b) in zip(frames, random.integers(-4, 5, (40, 2)), strict=True)
        ]
    elif event == "one frame":
        frames[20] = room(seed + 50)
    assert found(frames).cuts() == []


def test_stills():
    """A slide between two shots, compressed again and again with small errors, and a pause at the end."""
    random = np.random.default_rng(0)
    slide = [np.clip(room(9) + random.integers(-2, 3, (120, 160, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    moving = list(shot(2, 30))
    detector = found([*shot(1, 20), *slide, *moving, *[moving[-1]] * 12])
    assert detector.stills(25) == [range(20, 50)]
    assert detector.stills(10) == [range(20, 50), range(79, 92)]
    assert found(shot(1, 40)).stills(5) == []


def test_few_frames():
    assert found([]).cuts() == found([]).stills(1) == found([room(0)]).cuts() == []
    assert found([room(0), room(1)]).cuts() == [1]


def test_split_at():
    assert split_at([3, 5], 9) == [range(0, 3), range(3, 5), range(5, 9)]
    assert split_at([], 4) == [range(0, 4)]
