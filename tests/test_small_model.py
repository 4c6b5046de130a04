"""The small model in the package, on drawn people, motions and rooms that neither training nor tuning has seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli import demo
from mimicmotion_jax.evaluation.comparison import GENERATED, REPEAT, WITHHELD
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import draw_scenes, write_test_set

ROOT = Path(__file__).resolve().parents[1]

MAX_BYTES = 20e6
"""Largest total size of the weights in the repository."""

HELD_OUT_SEED = 101
"""Seed of the test sequences, chosen before the model was scored on them.

Scenes of the split "test" have characters, motions and rooms that the split "train" never has. Within that split,
guidance was tuned on seed 556, training went on until seed 77 passed, the ablation uses seed 0, docs/small_model.md
reports seed 2026 and its figure shows seed 1234; this seed was used for nothing else.
"""


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> dict[str, dict[str, float]]:
    """Scores of the model and of the baselines on held-out sequences."""
    folder = tmp_path_factory.mktemp("small")
    defaults = checkpoint.read_sampling(demo.WEIGHTS)
    world = WorldConfig(seed=HELD_OUT_SEED, width=defaults["width"], height=defaults["height"], num_frames=24)
    write_test_set(draw_scenes(world, 4, "test"), folder / "data", progress=False)
    # A process of its own, because this one's programs are compiled without optimisation.
    command = [sys.executable, "evaluate.py", "--checkpoint", demo.WEIGHTS, "--data", folder / "data"]
    command += ["--protocol", "synthetic", "--output", folder / "out", "withhold_poses=true", "batch_size=4"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_FLAGS", "JAX_DISABLE"))}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return json.loads((folder / "out" / "results.json").read_text())["summary"]


def test_videos_are_closer_to_the_truth_than_the_reference(summary):
    """The margin is 2.7 dB here; it grows with the length of the videos (3.7 dB for the 48 frames of the docs)."""
    assert summary[GENERATED]["psnr"] > summary[REPEAT]["psnr"] + 2


def test_poses_make_the_difference(summary):
    assert summary[GENERATED]["psnr"] > summary[WITHHELD]["psnr"] + 1.8
    assert summary[GENERATED]["foreground_iou"] > summary[WITHHELD]["foreground_iou"] + 0.1


def test_the_person_is_in_the_right_place(summary):
    assert summary[GENERATED]["foreground_iou"] > 0.7


def test_weights_fit_into_the_repository():
    assert sum(path.stat().st_size for path in demo.WEIGHTS.rglob("*") if path.is_file()) < MAX_BYTES
