"""A small test set of two sequences: a bright square that moves over a known background."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.run import Request, evaluate
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion

HEIGHT, WIDTH, FRAMES = 64, 48, 11


def draw_sequence(seed: int, num_frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> tuple:
    """Draw frames and background; the square is a third of the width and moves two pixels per frame."""
    random = np.random.default_rng(seed)
    background = random.integers(40, 90, (height, width, 3), np.uint8)
    frames = np.repeat(background[None], num_frames, axis=0)
    side = width // 3
    for index, frame in enumerate(frames):
        left = (2 * index + 5 * seed) % (width - side)
        frame[height // 4 : height // 4 + side, left : left + side] = (240, 180 + seed % 20, 170)
    return frames, background


def write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")


@pytest.fixture(scope="session")
def draw():
    return draw_sequence


@pytest.fixture(scope="session")
def write():
    return write_frames


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Sequences `a` and `b` with poses and backgrounds."""
    folder = tmp_path_factory.mktemp("test_set")
    for seed, name in enumerate("ab"):
        frames, background = draw_sequence(seed)
        write_frames(folder / name, frames)
        np.savez(folder / f"{name}.foreground.npz", background=background)
        save_keypoints(demo_motion(FRAMES, 12.0, WIDTH, HEIGHT), folder / f"{name}.npz")
    return folder


@pytest.fixture(scope="session")
def score():
    """A function that scores a folder of videos."""

    def run(generated: Path, data: Path, output: Path, protocol: str = "synthetic", **options) -> dict:
        request = Request(
            protocol=protocol, data=data, output=output, generated=generated, command="mimicmotion evaluate"
        )
        return evaluate(request, EvaluateConfig(**options), progress=False)

    return run
