"""Videos of an evaluation: the pipeline's own frames, baselines, reuse between runs, seams."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax import InputError
from mimicmotion_jax.diffusion.fusion import make_plan, plan_seams
from mimicmotion_jax.evaluation.config import EvaluateConfig, load_options
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.protocols import PROTOCOLS
from mimicmotion_jax.evaluation.run import Request, evaluate
from mimicmotion_jax.evaluation.sequences import find_sequences
from mimicmotion_jax.evaluation.tasks import TaskMaker
from mimicmotion_jax.models import encode
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.pose.select import fill_gaps
from mimicmotion_jax.video.decode import open_video

OPTIONS = {"num_inference_steps": 1, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def run(data, tiny_checkpoint):
    def evaluate_once(output: Path, **options) -> dict:
        request = Request(protocol="synthetic", data=data, output=output, checkpoint=tiny_checkpoint, num_devices=1)
        return evaluate(request, EvaluateConfig(**OPTIONS | options), progress=False)

    return evaluate_once


@pytest.fixture(scope="module")
def first(run, tmp_path_factory):
    """Results of a run with all baselines, and its folder."""
    output = tmp_path_factory.mktemp("run") / "out"
    return run(output, withhold_poses=True), output


def test_a_preset_is_its_options():
    fast = ["schedule=ays", "num_inference_steps=10", "guidance_interval=[0.05,20]"]
    assert load_options(overrides=["preset=fast"]).result_options == load_options(overrides=fast).result_options
    given = load_options(overrides=["preset=draft", "num_inference_steps=3"])
    assert (given.num_inference_steps, given.schedule) == (3, "ays")
    with pytest.raises(InputError, match="preset"):
        load_options(overrides=["preset=quick"])


def frames_of(path):
    return np.stack(list(open_video(path).frames()))


def first_sequence(data, tmp_path):
    return find_sequences(data, PROTOCOLS["synthetic"], Failures(tmp_path / "log"), progress=False)[0]


def inputs(data, name):
    frames = frames_of(data / name)
    poses = draw_poses(fill_gaps(load_keypoints(data / f"{name}.npz")), 64, 48)
    return frames, poses


def test_the_frames_are_the_pipelines(first, data, tiny_pipeline):
    true, poses = inputs(data, "b")
    for folder, pictures in (("videos", poses), ("withheld", 0 * poses)):
        expected = tiny_pipeline(true[0], pictures, **OPTIONS).frames
        frames = frames_of(first[1] / folder / "b")
        assert np.abs(frames - 255 * expected).max() < 0.6  # rounding
    assert (frames_of(first[1] / "videos" / "b") != frames_of(first[1] / "withheld" / "b")).any()


def test_the_ceiling_is_the_vae_alone(first, data, tiny_pipeline):
    frames, _ = inputs(data, "a")
    no_noise = jnp.zeros((1, 64, 48, 3))
    with jax.default_matmul_precision("highest"):
        latents = [encode.encode_image(tiny_pipeline.vae, jnp.asarray(frame[None]), no_noise) for frame in frames[1:]]
    scaled = np.stack(latents, axis=1) * tiny_pipeline.vae.config.scaling_factor
    config = EvaluateConfig(**OPTIONS)
    expected = np.concatenate(list(tiny_pipeline.decode(scaled, config)), axis=1)[0]
    np.testing.assert_array_equal(frames_of(first[1] / "reconstruction" / "a"), np.round(255 * expected))


def test_results_name_their_inputs(first):
    results, output = first
    assert list(results["summary"]) == ["generated", "repeat", "withheld", "reconstruction"]
    for row in results["sequences"]:
        assert row["frames"] == {"true": 10, "generated": 10, "compared": 10}
        assert len(row["differences"]["generated"]) == 9
        # Windows of 8 with the slot, overlap 3: moving frames 0 to 6 and 3 to 9.
        assert row["seams"] == [3, 7]
        curve = row["differences"]["generated"]
        expected = (curve[2] + curve[6]) / 2 / np.mean([v for i, v in enumerate(curve) if i not in (2, 6)])
        assert row["seam_discontinuity"]["generated"] == pytest.approx(expected)
    assert results["checkpoint"]["manifest_sha256"] in (output / "index.html").read_text()
    assert results["options"]["num_inference_steps"] == 1
    assert results["command"] == ""
    generated, repeat = results["summary"]["generated"], results["summary"]["repeat"]
    assert results["psnr_above_repeat"] == pytest.approx(generated["psnr"] - repeat["psnr"])
    assert (output / "index.html").read_text().count('<line x1="3" x2="3"') == 4  # above two slices of two sequences


def times(output: Path) -> dict:
    made = [path for folder in ("videos", "withheld", "reconstruction", "scores", "page") for path in
            (output / folder).rglob("*") if path.is_file()]  # fmt: skip
    assert len(made) == 3 * (2 * 10 + 2) + 2 + 2 * 2
    return {path.relative_to(output): path.stat().st_mtime_ns for path in made}


def test_current_videos_are_kept(first, run, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(first[1], output)
    before = times(output)
    results = run(output, withhold_poses=True)
    assert times(output) == before
    assert results["summary"] == first[0]["summary"]

    (output / "videos" / "a" / "00004.png").unlink()
    (output / "reconstruction" / "b.json").unlink()
    (output / "scores" / "b.json").unlink()
    results = run(output, withhold_poses=True)
    after = times(output)
    changed = {str(path.parent if path.suffix == ".png" else path) for path in after if after[path] != before[path]}
    assert changed == {"videos/a", "videos/a.json", "reconstruction/b", "reconstruction/b.json", "scores/b.json"}
    assert results["summary"]["reconstruction"] == first[0]["summary"]["reconstruction"]
    assert results["summary"]["repeat"] == first[0]["summary"]["repeat"]


def test_keys_tell_runs_apart(data, tmp_path):
    """True frames, poses, options and weights enter the key; options of speed and detection do not."""
    make = TaskMaker(PROTOCOLS["synthetic"], EvaluateConfig(), 16, tmp_path, progress=False)
    one = first_sequence(data, tmp_path)
    task, other_frames = make(one), make(dataclasses.replace(one, sha256="other"))
    assert task.sha256() == make(one).sha256()
    assert len({task.sha256(), other_frames.sha256(), task.withheld().sha256()}) == 3
    base = EvaluateConfig().result_options
    assert EvaluateConfig(batch_size=4, detector="mediapipe").result_options == base
    for change in (
        {"seed": 1},
        {"num_frames": 3},
        {"fusion": "none"},
        {"antialias": True},
        {"width": 64, "height": 64},
    ):
        assert EvaluateConfig(**change).result_options != base


def test_inputs_of_protocols(data, tmp_path):
    """The model sees pictures, or their central squares, and poses follow."""
    sequence = first_sequence(data, tmp_path)
    task = TaskMaker(PROTOCOLS["synthetic"], EvaluateConfig(num_frames=3), 16, tmp_path)(sequence)
    assert (task.size, task.num_frames) == ((64, 48), 4)
    np.testing.assert_array_equal(np.stack(list(task.frames())), frames_of(data / "a")[:4])
    square = TaskMaker(PROTOCOLS["disco"], EvaluateConfig(width=48, height=48), 16, tmp_path)(sequence)
    np.testing.assert_array_equal(np.stack(list(square.frames())), frames_of(data / "a")[:, 8:56])
    rows = (task.keypoints.body[..., 1] * 64 - 8) / 48
    np.testing.assert_allclose(square.keypoints.body[:4, ..., 1], rows, atol=1e-6)
    with pytest.raises(InputError, match=r"multiples of 16; say width=48 height=64"):
        TaskMaker(PROTOCOLS["synthetic"], EvaluateConfig(width=50, height=60), 16, tmp_path)
    with pytest.raises(InputError, match=r"multiples of 32; say width=64 height=64"):
        TaskMaker(PROTOCOLS["synthetic"], EvaluateConfig(), 32, tmp_path)(sequence)


class StandingPerson:
    """A detector that finds one person, always in the same place."""

    def __init__(self, x: float):
        self.x, self.calls = x, 0

    def track(self, frames):
        self.calls += 1
        for _ in frames:
            yield np.full((1, 133, 2), self.x), np.ones((1, 133))


def test_poses_of_one_detector_are_not_reused_for_another(data, tmp_path, monkeypatch):
    """The detector that "auto" stands for may change between runs, and so may the content of its model files."""
    sequence = dataclasses.replace(first_sequence(data, tmp_path), poses=None)
    models = {"person_model": str(tmp_path / "person.onnx"), "pose_model": str(tmp_path / "pose.onnx")}
    config = EvaluateConfig(**models)
    detectors = {b"one": StandingPerson(10), b"two": StandingPerson(30)}
    monkeypatch.setattr(EvaluateConfig, "load_detector", lambda self: detectors[(tmp_path / "pose.onnx").read_bytes()])
    (tmp_path / "person.onnx").write_bytes(b"person")

    def detect(content: bytes) -> tuple[float, list[int]]:
        (tmp_path / "pose.onnx").write_bytes(content)
        task = TaskMaker(PROTOCOLS["synthetic"], config, 16, tmp_path / "poses", progress=False)(sequence)
        return task.keypoints.body[0, 0, 0, 0] * 48, [detector.calls for detector in detectors.values()]

    assert detect(b"one") == (pytest.approx(10), [1, 0])
    assert detect(b"one") == (pytest.approx(10), [1, 0])
    assert detect(b"two") == (pytest.approx(30), [1, 1])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Segments of 3 at 0, 2, 4: frames 2 and 4 are shared.
        ("progressive", [2, 3, 4, 5]),
        # Segments of 3 at 0, 3 and 4; frames 4 and 5 belong to the second.
        ("none", [3, 6]),
    ],
)
def test_seams_by_hand(mode, expected):
    assert plan_seams(make_plan(8, 4, 1, mode), 8) == expected
    assert plan_seams(make_plan(8, 8, 3, mode), 8) == []
    assert plan_seams(make_plan(8, 4, 1, mode), 4) == [seam for seam in expected if seam < 3]


def test_records_are_json(first):
    record = json.loads((first[1] / "videos" / "a.json").read_text())
    assert record["frames"] == 10
    assert record["options"]["num_inference_steps"] == 1
