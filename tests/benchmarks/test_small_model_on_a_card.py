"""Parts of `benchmarks/gpu.py --only small-model`, and slowly the whole of it at the tiny size."""

import dataclasses
import math
import subprocess

import jax
import numpy as np
import optax
import pytest
from card.results import Results
from card.small_batches import EncodedWorld, vae_batches
from card.small_clock import Clock, at_tick, train_by_clock
from card.small_files import Weights, find_earlier, pack, shorten
from card.small_sizes import SMALL_SIZES, TICKS
from card.small_world import World, WorldPlan
from test_card import GPU, run

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.checkpoint import PACKAGED, read_config
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.pose.render import DrawStyle
from mimicmotion_jax.synthetic.world import make_scenes, render
from mimicmotion_jax.training.config import OptimizerConfig
from mimicmotion_jax.training.state import TrainState, apply_gradients, init_state

SIZE = SMALL_SIZES["tiny"]
PLAN = WorldPlan(64, 64, 9, (15.0, 5.0), (8, 8), DrawStyle(stroke_width=6.0), seed=3)


@pytest.fixture(scope="module")
def world():
    """Ten scenes, of which the last eight are kept."""
    world = World(PLAN, capacity=8, workers=1, limit=10)
    world.wait(10)
    yield world
    world.close()


def test_scenes_are_those_of_the_world_and_the_newest_are_kept(world):
    for number in (2, 9):
        (scene,) = make_scenes(1, 3_000_000 + number, "train", 64, 64, 9, PLAN.fps[number % 2])
        np.testing.assert_array_equal(world.arrays["frames"][number % 8], render(scene).frames)
        assert world.numbers[number % 8] == number
    assert world.kept() == (6, 10)  # the next ones go where scenes 2 to 5 are
    drawn = world.arrays["poses"].reshape(8, -1)
    assert (drawn.max(1) > 100).all()
    assert 0 < world.arrays["hand_mask"].mean() < 0.5
    test = dataclasses.replace(PLAN, split="test").make(2)
    assert not np.array_equal(test["background"], world.plan.make(2)["background"])
    (free,) = make_scenes(1, 3_000_002, "train", 64, 64, 9, PLAN.fps[0], "free")
    turning = dataclasses.replace(PLAN, movement="free").make(2)["frames"]
    np.testing.assert_array_equal(turning, render(free).frames)
    assert not np.array_equal(turning, world.plan.make(2)["frames"])


def test_a_world_without_workers_says_so(world):
    with pytest.raises(RuntimeError, match="ended after 10 scenes"):
        world.wait(11)


def test_clips_of_the_vae_are_neighbouring_frames_of_kept_scenes(world):
    batch = next(vae_batches(world, 4, seed=1))
    kept = {number % 8 for number in range(*world.kept())}
    for clip, mask in zip(np.asarray(batch["frames"]), np.asarray(batch["hand_mask"]), strict=True):
        places = [
            (scene, start)
            for scene in kept
            for start in range(7)
            if np.array_equal(world.arrays["frames"][scene, start : start + 3], clip)
        ]
        assert places
        assert any(np.array_equal(world.arrays["hand_mask"][s, t : t + 3], mask) for s, t in places)


def test_clips_of_the_unet_begin_with_the_reference_and_belong_together(world):
    def encode(frames):
        means = frames.mean((1, 2), dtype=np.float64)  # a picture is known by its mean colours
        return np.broadcast_to(means[:, None, None], (len(frames), 8, 8, 3)).astype(np.float16), means[:, :1]

    encoded = EncodedWorld(world, encode, latent_channels=3, embedding=1, group=2, newest=4)
    while encoded.advance(1):
        pass
    assert encoded.kept() == (6, 10)
    config = SIZE.training(SIZE.model, seed=5)
    batch = jax.device_get(next(encoded.batches(config, 0.5, sharding.training_mesh(devices=jax.devices()[:1]))))
    np.testing.assert_array_equal(batch.index, [0, 1])
    np.testing.assert_allclose(batch.latents[:, 0], 0.5 * batch.image_latents, rtol=1e-6)
    means = world.arrays["frames"].mean((2, 3), dtype=np.float64)
    for poses, mask, latents in zip(batch.poses, batch.hand_mask, batch.latents[:, :, 0, 0], strict=True):
        found = [np.abs(means - 2 * latent).sum(-1).argmin() for latent in latents]
        scenes, frames = np.unravel_index(found, means.shape[:2])
        assert len(set(scenes)) == 1
        np.testing.assert_array_equal(np.diff(frames[1:]), 1)
        np.testing.assert_array_equal(poses, world.arrays["poses"][scenes, frames])
        np.testing.assert_array_equal(mask, world.arrays["hand_mask"][scenes, frames])


def test_the_clock_sets_the_learning_rate():
    config = OptimizerConfig(learning_rate=1e-2, warmup_steps=20, decay="cosine", weight_decay=0.0, ema_decay=None)
    mesh = sharding.training_mesh(devices=jax.devices()[:1])
    state = init_state({"x": np.zeros(3, np.float32)}, config, TICKS, mesh)
    gradient = {"x": np.float32([1, -2, 0.5])}
    update = jax.jit(lambda state: apply_gradients(state, np.float32(1), gradient, config, TICKS)[0])
    for tick in (500, 900):
        moved = update(at_tick(state, tick))
        rate = 1e-2 * 0.5 * (1 + math.cos(math.pi * (tick + 1 - 20) / (TICKS - 20)))
        # Adam's first step is the rate in the direction of the gradient's signs.
        np.testing.assert_allclose(moved.params["x"], -rate * np.sign(gradient["x"]), rtol=1e-4)


def test_training_ends_by_the_clock_and_reports_means():
    ticks = []

    def step(state, batch):
        ticks.append(int(state.opt_state.count))
        return state, {"loss": np.float32(batch), "learning_rate": np.float32(0)}

    clock = Clock(seconds=100, reserve=1)
    assert clock.end - clock.training_end == 1
    schedule = optax.ScaleByScheduleState(count=jax.numpy.zeros((), int))
    state = TrainState(jax.numpy.zeros(()), {}, schedule, {})
    _, history = train_by_clock("x", state, step, iter(range(100)), clock, clock.end, frames=1, max_steps=10)
    assert ticks == [100 * n for n in range(10)]
    assert history[-1]["loss"] == 9
    assert history[-1]["step"] == 10


def test_parts_are_a_tar_and_are_found_again(tmp_path, monkeypatch):
    folder, output = tmp_path / "made", tmp_path / "results"
    content = np.random.default_rng(0).bytes(16 * 2**20)
    (folder / "params").mkdir(parents=True)
    (folder / "params" / "x").write_bytes(content)
    (folder / "manifest.json").write_text("{}")
    assert find_earlier(output) is None
    output.mkdir()
    (output / "small-model.tar.007").write_bytes(b"of a larger one before")
    pack(folder, output)
    parts = sorted(output.iterdir())
    assert [part.name for part in parts] == ["small-model.tar.000", "small-model.tar.001"]
    assert max(part.stat().st_size for part in parts) < 16 * 2**20
    (tmp_path / "by hand").mkdir()
    subprocess.run(f"cat {output}/small-model.tar.* | tar -x -C '{tmp_path}/by hand'", shell=True, check=True)
    monkeypatch.setenv("SMALL_MODEL_FROM", str(output))
    for unpacked in (tmp_path / "by hand", find_earlier(tmp_path / "elsewhere")):
        assert (unpacked / "params" / "x").read_bytes() == content
    monkeypatch.setenv("SMALL_MODEL_FROM", str(folder))
    assert find_earlier(output) == folder
    monkeypatch.setenv("SMALL_MODEL_FROM", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="neither a checkpoint nor parts"):
        find_earlier(output)


def test_exported_kernels_have_seven_significant_bits():
    kernel = np.array([[1.0, -1.0078125, 1.01171875, 100.4, 0.0]], np.float32)  # 1, 1 + 2^-7, 1 + 1.5 * 2^-7
    np.testing.assert_array_equal(shorten(kernel), [[1.0, -1.0, 1.015625, 100.0, 0.0]])  # 1 + 2^-6
    np.testing.assert_array_equal(shorten(bias := kernel[0]), bias)


@pytest.mark.parametrize(("name", "trained_anew"), [("small", set()), ("small-student", {"unet", "pose_net"})])
def test_a_run_goes_on_from_a_packaged_model_or_from_its_vae(tmp_path, monkeypatch, name, trained_anew):
    monkeypatch.setenv("SMALL_MODEL_FROM", str(PACKAGED / name))
    weights = Weights(SMALL_SIZES["full"].model, tmp_path)
    assert set(weights.missing()) == trained_anew
    weights.load()
    assert weights.networks.keys() == NETWORKS.keys() - trained_anew
    assert weights.model.vae == read_config(PACKAGED / name).vae


@pytest.mark.slow
def test_the_whole_run_and_another_that_goes_on(tmp_path):
    rows = run(GPU.EXPERIMENTS, "small-model", tmp_path)
    assert set(rows["train/scores"]) >= {"generated", "repeat", "VAE"}
    assert len(rows["train/scores"]["manifest"]["sources"]) == 2
    again = run(GPU.EXPERIMENTS, "small-model", tmp_path)
    assert len(again["train/vae"]["taken_from"]) == 2
    assert len(again["train/scores"]["manifest"]["sources"]) == 3
    # The VAE is the same; UNet and PoseNet were trained further.
    assert again["train/scores"]["VAE"] == pytest.approx(rows["train/scores"]["VAE"])
    assert again["train/scores"]["generated"] != rows["train/scores"]["generated"]
    checkpoint = find_earlier(tmp_path)
    pipeline = MimicMotionPipeline.from_pretrained(checkpoint)
    expected = {"width": 64, "height": 64, "num_inference_steps": 6, "stroke_width": 6.0}
    assert expected.items() <= pipeline.defaults.items()
    assert (tmp_path / "small-model.png").stat().st_size > 1000
    assert len(Results(tmp_path / "small-model.json").parts) == 1
