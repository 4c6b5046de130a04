"""The models in the package, on drawn people, motions and rooms that neither training nor tuning has seen."""

from pathlib import Path

import numpy as np
import pytest

from mimicmotion_jax import MimicMotionPipeline
from mimicmotion_jax.checkpoint import PACKAGED
from mimicmotion_jax.cli import demo
from mimicmotion_jax.evaluation.comparison import GENERATED, REPEAT, WITHHELD
from mimicmotion_jax.evaluation.config import load_options
from mimicmotion_jax.evaluation.protocols import get_protocol
from mimicmotion_jax.evaluation.run import Request, evaluate
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.metrics.silhouette import foreground, intersection_over_union
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import detect, draw_scenes, write_test_set
from mimicmotion_jax.synthetic.world import render

MAX_BYTES = 40e6
"""Largest size of all models in the package together."""

HELD_OUT_SEED = 101
"""Seed of the test sequences, chosen before the model was scored on them.

Scenes of the split "test" have characters, motions and rooms that the split "train" never has. Within that split,
sampling was tuned on seed 77, docs/small_model.md reports seed 2027 and its figure shows seed 1234; this seed was used
for nothing else.
"""


def scores(checkpoint: Path, folder: Path, *options: str, **world: object) -> dict[str, dict[str, float]]:
    """Scores on two held-out sequences at the model's size."""
    options = load_options(checkpoint, overrides=list(options))
    config = WorldConfig(seed=HELD_OUT_SEED, width=options.width, height=options.height, **world)
    write_test_set(draw_scenes(config, 2, "test"), folder / "data", progress=False)
    request = Request("synthetic", folder / "data", folder / "out", checkpoint=checkpoint, num_devices=1)
    return evaluate(request, options, progress=False)["summary"]


def test_a_person_it_has_never_seen_moves_as_the_skeleton_does():
    """One window with two of the model's six steps; the margin grows with the length (docs/small_model.md)."""
    pipe = MimicMotionPipeline.from_pretrained("small", num_devices=1)
    world = WorldConfig(seed=HELD_OUT_SEED, width=pipe.defaults["width"], height=pipe.defaults["height"], num_frames=8)
    (scene,) = draw_scenes(world, 1, "test")
    truth = render(scene)
    motion = detect(scene, truth.keypoints)
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "align": "none", "gaps": "dark", "progress": False}
    video = pipe(truth.frames[0], motion[1:], image_pose=motion[:1], **options)
    frames = np.round(video.frames * 255).astype(np.uint8)
    repeated = np.broadcast_to(truth.frames[:1], frames.shape)
    assert average_psnr(psnr(frames, truth.frames[1:])) > average_psnr(psnr(repeated, truth.frames[1:])) + 2
    threshold = get_protocol("synthetic").foreground_threshold
    people = [foreground(pixels, truth.background, threshold) for pixels in (frames, truth.frames[1:])]
    assert intersection_over_union(*people).mean() > 0.75


@pytest.mark.slow
def test_poses_make_the_difference_also_to_people_who_turn_their_backs(tmp_path):
    found = scores(demo.WEIGHTS, tmp_path, "withhold_poses=true", movement="free", num_frames=24)
    for baseline in (REPEAT, WITHHELD):
        assert found[GENERATED]["psnr"] > found[baseline]["psnr"] + 3
        assert found[GENERATED]["foreground_iou"] > found[baseline]["foreground_iou"] + 0.1


@pytest.mark.slow
def test_the_students_four_calls_are_enough(tmp_path):
    """docs/faster.md compares it with its teacher, which is not in the package."""
    found = scores(PACKAGED / "small-student", tmp_path, "batch_size=2", num_frames=16)
    assert found[GENERATED]["psnr"] > found[REPEAT]["psnr"] + 2
    assert found[GENERATED]["foreground_iou"] > 0.7


def test_weights_fit_into_the_package():
    assert {folder.name for folder in PACKAGED.iterdir() if folder.is_dir()} == {"small", "small-student"}
    assert sum(path.stat().st_size for path in PACKAGED.rglob("*") if path.is_file()) < MAX_BYTES
