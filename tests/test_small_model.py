"""The models in the package, on drawn people, motions and rooms that neither training nor tuning has seen."""

import pytest

from mimicmotion_jax.checkpoint import PACKAGED
from mimicmotion_jax.cli import demo
from mimicmotion_jax.evaluation.comparison import GENERATED, REPEAT, WITHHELD
from mimicmotion_jax.evaluation.config import load_options
from mimicmotion_jax.evaluation.run import Request, evaluate
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import draw_scenes, write_test_set

MAX_BYTES = 20e6
"""Largest size of each model in the package, which may have two of them."""

HELD_OUT_SEED = 101
"""Seed of the test sequences, chosen before the model was scored on them.

Scenes of the split "test" have characters, motions and rooms that the split "train" never has. Within that split,
guidance was tuned on seed 556, training went on until seed 77 passed, the ablation uses seed 0, docs/small_model.md
reports seed 2026 and its figure shows seed 1234; this seed was used for nothing else.
"""


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> dict[str, dict[str, float]]:
    """Scores of the model and of the baselines on held-out sequences.

    Three steps without guidance instead of the model's six with a scale of 1.25 take a quarter of the time; one video
    after the other, as the ceiling is made: one program decodes all.
    """
    folder = tmp_path_factory.mktemp("small")
    options = load_options(demo.WEIGHTS, overrides=["num_inference_steps=3", "guidance_scale=1", "withhold_poses=true"])
    world = WorldConfig(seed=HELD_OUT_SEED, width=options.width, height=options.height, num_frames=16)
    write_test_set(draw_scenes(world, 2, "test"), folder / "data", progress=False)
    request = Request("synthetic", folder / "data", folder / "out", checkpoint=demo.WEIGHTS, num_devices=1)
    return evaluate(request, options, progress=False)["summary"]


def test_videos_are_closer_to_the_truth_than_the_reference(summary):
    """The margin is 3.2 dB here; it grows with the length (docs/small_model.md)."""
    assert summary[GENERATED]["psnr"] > summary[REPEAT]["psnr"] + 2


def test_poses_make_the_difference(summary):
    assert summary[GENERATED]["psnr"] > summary[WITHHELD]["psnr"] + 1.8
    assert summary[GENERATED]["foreground_iou"] > summary[WITHHELD]["foreground_iou"] + 0.1


def test_the_person_is_in_the_right_place(summary):
    assert summary[GENERATED]["foreground_iou"] > 0.7


@pytest.mark.slow
def test_the_students_four_calls_are_as_good_as_fifty(tmp_path):
    world = WorldConfig(seed=HELD_OUT_SEED, width=96, height=128, num_frames=16)
    write_test_set(draw_scenes(world, 2, "test"), tmp_path / "data", progress=False)
    scores = {}
    for name, overrides in (("small", ["num_inference_steps=25"]), ("small-student", [])):
        options = load_options(PACKAGED / name, overrides=[*overrides, "batch_size=2"])
        request = Request("synthetic", tmp_path / "data", tmp_path / name, checkpoint=PACKAGED / name, num_devices=1)
        scores[name] = evaluate(request, options, progress=False)["summary"][GENERATED]
    assert scores["small-student"]["psnr"] > scores["small"]["psnr"] - 0.3
    assert scores["small-student"]["foreground_iou"] > scores["small"]["foreground_iou"] - 0.02


def test_weights_fit_into_the_package():
    folders = [folder for folder in PACKAGED.iterdir() if folder.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MAX_BYTES
