"""Generation on Apache Beam's local runner: the same videos as without it, failures apart, nothing made twice."""

import functools
import json
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from etils import epath
from PIL import Image
from tiny import FEW, SIDE

from mimicmotion_jax import InputError, MimicMotionPipeline
from mimicmotion_jax.cli import sample
from mimicmotion_jax.inference.beam import GenerateVideos
from mimicmotion_jax.inference.job_list import read_jobs, to_line
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video

# One video at a time: programs that other tests have compiled already.
OPTIONS = FEW | {"width": SIDE, "height": SIDE, "num_inference_steps": 1, "num_frames": 2, "batch_size": 1}
JOB = {"image": "person.png", "image_pose": "person.npz", "motion": "dance.npz"}


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory) -> Path:
    """A checkpoint, a reference picture with its pose, a motion."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "checkpoint").symlink_to(tiny_checkpoint)
    picture, pose = demo_reference(64, 64)
    Image.fromarray(picture).save(folder / "person.png")
    save_keypoints(pose, folder / "person.npz")
    save_keypoints(demo_motion(3, 10, 64, 64), folder / "dance.npz")
    return folder


def run(monkeypatch, folder, output_dir, *more) -> int:
    options = [f"{name}={value}" for name, value in OPTIONS.items()]
    lists = ["--jobs", folder / "jobs.jsonl", "--output-dir", output_dir]
    arguments = ["--devices", 1, "--checkpoint", folder / "checkpoint", *lists, *more, *options]
    monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, arguments)])
    return sample.main()


def pixels(path) -> np.ndarray:
    return np.stack(list(open_video(path).frames()))


def test_beam_makes_the_videos_of_the_list(folder, tmp_path, monkeypatch, capsys):
    """The same pixels as `--jobs` alone; the failing job in a file; a second run makes what is missing only."""
    seeds = [JOB | {"output": f"{seed}.mp4", "seed": seed} for seed in range(2)]
    lines = [*seeds, JOB | {"motion": "missing.npz", "output": "bad.mp4"}]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    assert run(monkeypatch, folder, alone) == 1
    capsys.readouterr()
    assert run(monkeypatch, folder, spread, "--beam-options", "runner=DirectRunner") == 1
    assert f"1 of 3 jobs failed; {spread / 'failures' / 'jobs.jsonl'} has them" in capsys.readouterr().err
    assert {path.name for path in spread.iterdir()} == {"0.mp4", "1.mp4", "failures"}
    for name in ("0.mp4", "1.mp4"):
        np.testing.assert_array_equal(pixels(spread / name), pixels(alone / name))
    (failure,) = map(json.loads, (spread / "failures" / "jobs.jsonl").read_text().splitlines())
    assert (failure["job"]["output"], failure["job"]["motion"]) == ("bad.mp4", str(folder / "missing.npz"))
    assert failure["reason"].startswith("there is no keypoint file")
    assert failure["traceback"].startswith("Traceback")

    before = {name: (spread / name).stat().st_mtime_ns for name in ("0.mp4", "1.mp4")}
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, seeds)))
    assert run(monkeypatch, folder, spread, "--beam-options", "direct_num_workers=1") == 0
    assert {path.name: path.stat().st_mtime_ns for path in spread.iterdir()} == before


@pytest.mark.slow
def test_the_transform_sorts_jobs_into_results_and_failures(folder, bucket, monkeypatch):
    """Inputs and outputs in a bucket; one process holds the weights; bad lines and shared outputs fail alone."""
    for name in ("person.png", "person.npz", "dance.npz"):
        epath.Path(f"gs://bucket/inputs/{name}").write_bytes((folder / name).read_bytes())
    good = JOB | {"output": "good.gif", "motion": "gs://bucket/inputs/dance.npz"}
    twice = JOB | {"output": "twice.gif"}
    bad = {"sead": JOB | {"sead": 1}, "outside": JOB | {"output": "../x.gif"}, "gone": JOB | {"motion": "no.npz"}}
    load = functools.partial(MimicMotionPipeline.from_pretrained, str(folder / "checkpoint"), num_devices=1)

    def make(check_results, check_failures):
        with beam.Pipeline(FnApiRunner()) as pipeline:
            jobs = pipeline | beam.Create([good, twice, twice, *bad.values()])
            videos = jobs | GenerateVideos(load, bucket, GenerateConfig(**OPTIONS), folder="gs://bucket/inputs")
            assert_that(videos.results, check_results, label="results")
            assert_that(videos.failures, check_failures, label="failures")

    def made(results):
        (result,) = results
        assert result == {"job": good, "output": f"{bucket}/good.gif", "report": result["report"]}
        assert "a person in 100%" in result["report"]

    def skipped(results):
        assert results == [{"job": good, "output": f"{bucket}/good.gif", "report": None}]

    def failed(failures):
        reasons = {json.dumps(failure["job"]): failure["reason"] for failure in failures}
        assert len(failures) == 5
        assert "did you mean 'seed'" in reasons[json.dumps(bad["sead"])]
        assert '"output" must lie inside' in reasons[json.dumps(bad["outside"])]
        assert "there is no file gs://bucket/inputs/no.npz" in reasons[json.dumps(bad["gone"])]
        assert "2 jobs write" in reasons[json.dumps(twice)]

    make(made, failed)
    video = epath.Path(f"{bucket}/good.gif").read_bytes()
    make(skipped, failed)
    assert epath.Path(f"{bucket}/good.gif").read_bytes() == video
    assert [path.name for path in epath.Path(bucket).iterdir()] == ["good.gif"]


def test_lines_and_jobs_say_the_same(tmp_path):
    line = JOB | {"output": "deep/x.mp4", "seed": 0, "motion_size": [8, 6], "options": {"stride": 2}}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    (job,) = read_jobs(tmp_path / "a.jsonl", tmp_path / "videos")
    (tmp_path / "b.jsonl").write_text(json.dumps(to_line(job, tmp_path / "videos")))
    assert read_jobs(tmp_path / "b.jsonl", tmp_path / "videos") == [job]


def test_a_bad_checkpoint_is_one_sentence(folder, tmp_path, monkeypatch):
    (folder / "jobs.jsonl").write_text(json.dumps(JOB))
    with pytest.raises(InputError, match="1000 devices"):
        run(monkeypatch, folder, tmp_path, "--devices", 1000, "--beam-options", "runner=DirectRunner")
