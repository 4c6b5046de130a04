"""The small model that comes with the code: on people, motions and rooms it has never seen it does what it is told."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli import demo
from mimicmotion_jax.evaluation.comparison import GENERATED, REPEAT, WITHHELD
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import draw_scenes, write_test_set

ROOT = Path(__file__).resolve().parents[1]

LARGEST = 20e6  # bytes of weights that the repository may hold


Summary = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Callable[[int], Summary]:
    """Scores by the length of the videos, of other people than the recorded evaluation's (docs/small_model.md)."""
    width, height = (checkpoint.read_sampling(demo.WEIGHTS)[side] for side in ("width", "height"))

    @functools.cache
    def evaluate(num_frames: int) -> Summary:
        folder = tmp_path_factory.mktemp("small")
        world = WorldConfig(seed=77, width=width, height=height, num_frames=num_frames)
        write_test_set(draw_scenes(world, 4, "test"), folder / "data", progress=False)
        # In a process of its own: this one's programs are compiled without optimisation, and there is much to compute.
        command = [sys.executable, "evaluate.py", "--checkpoint", demo.WEIGHTS, "--data", folder / "data"]
        command += ["--protocol", "synthetic", "--output", folder / "out", "withhold_poses=true", "batch_size=4"]
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return json.loads((folder / "out" / "results.json").read_text())["summary"]

    return evaluate


# Frames: of a short video the reference is right for a larger part; the longer ones are as the recorded ones.
@pytest.fixture(scope="module", params=[16, pytest.param(48, marks=pytest.mark.slow)])
def summary(evaluated, request) -> Summary:
    return evaluated(request.param)


def test_videos_are_closer_to_the_truth_than_the_reference(summary):
    assert summary[GENERATED]["psnr"] > summary[REPEAT]["psnr"] + 3


def test_poses_are_what_makes_them_so(summary):
    assert summary[GENERATED]["psnr"] > summary[WITHHELD]["psnr"] + 2.5
    assert summary[GENERATED]["foreground_iou"] > summary[WITHHELD]["foreground_iou"] + 0.1


def test_the_person_is_where_it_should_be(summary):
    assert summary[GENERATED]["foreground_iou"] > 0.7


def test_weights_fit_into_the_repository():
    assert sum(path.stat().st_size for path in demo.WEIGHTS.rglob("*") if path.is_file()) < LARGEST
