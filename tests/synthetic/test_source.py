"""The synthetic world as a dataset and as a test set: every scene is stored as rendered, and rendered once."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimicmotion_jax.cli import prepare as command
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.data.dataset import Records, read_info
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic import source as synthetic
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.detector import simulate_detection
from mimicmotion_jax.synthetic.source import SyntheticWorld, draw_scenes, named, scene_digest, write_test_set
from mimicmotion_jax.synthetic.world import make_scenes, render

COUNT, WIDTH, HEIGHT, NUM_FRAMES, FPS = 2, 96, 128, 18, 15.0
VALUES = {"seed": 7, "width": WIDTH, "height": HEIGHT, "num_frames": NUM_FRAMES, "fps": FPS}
WORLD = WorldConfig(**VALUES)


def assert_same(found: Keypoints, expected: Keypoints) -> None:
    assert (found.width, found.height, found.fps) == (expected.width, expected.height, expected.fps)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the PSNR in decibels of the brightness of RGB pictures; colours are stored at half the resolution."""
    difference = (a.astype(float) - b) @ (0.2126, 0.7152, 0.0722)
    return float(10 * np.log10(255**2 / np.square(difference).mean()))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("world")
    summary = prepare(SyntheticWorld(COUNT, WORLD), output, PrepareConfig(), progress=False)
    assert (summary.prepared, summary.frames, summary.skipped) == (COUNT, COUNT * NUM_FRAMES, {})
    return output


def test_records_are_the_scenes(dataset):
    scenes = named(make_scenes(COUNT, 7, "train", WIDTH, HEIGHT, NUM_FRAMES, fps=FPS))
    assert [record.name for record in read_info(dataset).records] == list(scenes)
    for record, scene in zip(Records(dataset), scenes.values(), strict=True):
        rendered = render(scene)
        assert psnr(record.frames(range(NUM_FRAMES)), rendered.frames) > 33
        assert_same(record.keypoints, simulate_detection(rendered.keypoints, int(scene_digest(scene)[:16], 16)))


def test_clips_are_read_back(dataset):
    """At the stored size a clip is the stored frames, and the drawn poses are the simulated ones."""
    config = DataConfig(dataset=str(dataset), width=WIDTH, height=HEIGHT, num_frames=4, interval=(5, 5))
    loader = ClipLoader(config, batch_size=2, seed=0)
    batch = next(loader)
    loader.close()
    assert batch["frames"].shape == batch["poses"].shape == (2, 4, HEIGHT, WIDTH, 3)
    assert batch["hand_mask"].shape == (2, 4, HEIGHT // 8, WIDTH // 8)
    world = SyntheticWorld(COUNT, WORLD)
    found = set()
    for item in world.items():
        with world.open(item) as video:
            poses = draw_poses(video.keypoints, HEIGHT, WIDTH)
            frames = np.stack(list(video.frames()))
        for sample in range(2):
            for start in range(NUM_FRAMES - 15):
                if (batch["poses"][sample] == poses[start : start + 16 : 5]).all():
                    found.add(sample)
                    assert psnr(batch["frames"][sample], frames[start : start + 16 : 5]) > 33
    assert found == {0, 1}


def test_a_finished_scene_is_recognised_by_its_values(dataset, monkeypatch):
    rendered = []
    monkeypatch.setattr(synthetic, "render", lambda scene: rendered.append(scene) or render(scene))
    files = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    prepare(SyntheticWorld(COUNT, WORLD), dataset, PrepareConfig(), progress=False)
    assert not rendered
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == files
    # Values, keypoints included, change with any number that goes in.
    (scene,) = draw_scenes(WORLD, 1)
    changed = [dataclasses.replace(scene, **{key: getattr(scene, key) + 2}) for key in ("character", "width", "fps")]
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    assert len({scene_digest(scene), *map(scene_digest, changed)}) == 4
    monkeypatch.undo()
    assert scene_digest(scene) not in map(scene_digest, changed)


def test_a_scene_is_rendered_once_per_opening(monkeypatch):
    rendered = []
    monkeypatch.setattr(synthetic, "render", lambda scene: rendered.append(scene) or render(scene))
    world = SyntheticWorld(1, WORLD)
    (item,) = world.items()
    with world.open(item) as video:
        assert len(list(video.frames())) == len(list(video.frames())) == NUM_FRAMES
        assert (video.num_frames, video.fps) == (NUM_FRAMES, FPS)
    assert len(rendered) == 1


def test_the_folder_of_test_sequences(tmp_path, monkeypatch):
    scenes = draw_scenes(WORLD, COUNT, "test")
    assert scenes == make_scenes(COUNT, 7, "test", WIDTH, HEIGHT, NUM_FRAMES, fps=FPS)
    folder = tmp_path / "below" / "tests"
    names = write_test_set(scenes[:1], folder, progress=False)
    (first,) = names
    before = {path: path.stat().st_mtime_ns for path in folder.glob(f"{first}*")}
    calls = []
    monkeypatch.setattr(synthetic, "render", lambda scene: calls.append(scene) or render(scene))
    names = write_test_set(scenes, folder, progress=False)
    assert calls == scenes[1:]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    expected = [file for name in names for file in (name, f"{name}.foreground.npz", f"{name}.npz")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)  # nothing hidden either
    for name, scene in zip(names, scenes, strict=True):
        rendered = render(scene)
        pictures = sorted((folder / name).iterdir())
        assert [path.name for path in pictures] == [f"{number:05d}.png" for number in range(NUM_FRAMES)]
        np.testing.assert_array_equal(np.stack([np.asarray(Image.open(path)) for path in pictures]), rendered.frames)
        assert_same(load_keypoints(folder / f"{name}.npz"), synthetic.detect(scene, rendered.keypoints))
        with np.load(folder / f"{name}.foreground.npz") as file:
            np.testing.assert_array_equal(file["foreground"], rendered.foreground)
            np.testing.assert_array_equal(file["background"], rendered.background)
    with pytest.raises(InputError, match="something else"):
        write_test_set(draw_scenes(WORLD, 1, "train"), folder, progress=False)


def test_an_interrupted_sequence_is_made_again(tmp_path, monkeypatch):
    scenes = draw_scenes(WORLD, 1, "test")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "open_writer", stop)
    with pytest.raises(KeyboardInterrupt):
        write_test_set(scenes, tmp_path, progress=False)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    monkeypatch.undo()
    (name,) = write_test_set(scenes, tmp_path, progress=False)
    assert len(list((tmp_path / name).iterdir())) == NUM_FRAMES


def test_the_command(tmp_path, capsys):
    options = [f"world.{key}={value}" for key, value in VALUES.items()]
    assert command.main(["--synthetic", "1", "--output", str(tmp_path / "out"), *options]) == 0
    assert capsys.readouterr().out == "prepared 1 videos (18 frames, 0.0 minutes), none skipped\n"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == NUM_FRAMES
    assert command.main(["--synthetic", "1", "--test-set", "--output", str(tmp_path / "tests"), *options]) == 0
    (name,) = named(draw_scenes(WORLD, 1, "test"))
    assert (tmp_path / "tests" / name / "00017.png").exists()
