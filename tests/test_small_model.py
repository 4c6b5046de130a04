"""The small model that comes with the code: on people, motions and rooms it has never seen it does what it is told."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mimicmotion_jax import checkpoint
from mimicmotion_jax.cli import demo, sample
from mimicmotion_jax.evaluation.comparison import GENERATED, REPEAT, WITHHELD
from mimicmotion_jax.inference.generate import generate
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import draw_scenes, write_test_set
from mimicmotion_jax.video.decode import open_video

ROOT = Path(__file__).resolve().parents[1]

LARGEST = 20e6  # bytes of weights that the repository may hold


Summary = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Callable[[int], Summary]:
    """Scores by the length of the videos, of other people than the recorded evaluation's (docs/small_model.md)."""
    width, height = checkpoint.read_sampling(demo.WEIGHTS)["size"]

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


def test_the_demonstration_is_a_video_of_three_panels(tmp_path):
    demo.run_demo(tmp_path / "demo.mp4", overrides=["max_frames=5", "num_inference_steps=1"])
    video = open_video(tmp_path / "demo.mp4")
    assert video.num_frames == 5
    reference, skeleton, result = np.array_split(next(iter(video.frames())), 3, axis=1)
    assert skeleton.mean() < 60 < min(reference.mean(), result.mean())  # skeletons are drawn on black


def test_the_demonstration_takes_size_type_and_devices(tmp_path, monkeypatch):
    """Options of a file go before the demonstration's own; what a device is given tells the type."""
    (tmp_path / "mine.yaml").write_text("max_frames: 2\nnum_inference_steps: 1\nside_by_side: false\n")
    pipelines = []
    monkeypatch.setattr(
        demo, "generate", lambda pipeline, *rest: pipelines.append(pipeline) or generate(pipeline, *rest)
    )
    switches = ["--config", tmp_path / "mine.yaml", "--dtype", "bfloat16", "--devices", "2"]
    options = ["resolution=64", "aspect=square"]
    arguments = ["sample.py", "--output", tmp_path / "a.gif", *switches, *options]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    assert sample.main() == 0
    video = open_video(tmp_path / "a.gif")
    assert (video.num_frames, video.width, video.height) == (2, 64, 64)
    (pipeline,) = pipelines
    assert pipeline.mesh.size == 2
    assert pipeline.unet.conv_in.kernel.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("stride=2", "stride has no effect on the demonstration"),
        ("person=1", "person has no effect on the demonstration"),
        ("resolution=100", "resolution 100 is not a multiple of"),
        ("size=[97,128]", "both sides must be multiples of"),
    ],
)
def test_what_the_demonstration_cannot_do_is_refused(tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        demo.run_demo(tmp_path / "demo.mp4", overrides=[option])
    assert not list(tmp_path.iterdir())


def test_without_the_repository_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "WEIGHTS", Path(tmp_path / "nothing"))
    with pytest.raises(InputError, match="run from a clone of the repository, or give --checkpoint"):
        demo.run_demo(tmp_path / "demo.mp4")
