"""Parts of `benchmarks/gpu.py --only ablation`, and slowly the whole of it at the tiny size."""

import dataclasses
import types

import numpy as np
import pytest
from card.ablation import fit_steps
from card.ablation_page import row_name, table_rows, write_page
from card.ablation_pictures import differences_plot, hands_strip, mistakes_strip, slices_strip
from card.ablation_scores import score
from card.ablation_setup import SHIPPED
from card.ablation_sizes import ABLATION_SIZES, SEEDS
from card.ablation_table import MISTAKEN, SEAM, TRUE_SEAM, VARIANTS, summarise
from card.ablation_world import FIGURE_7, AblationPlan, mistaken_hands, variant_samples
from card.results import Results
from card.small_batches import EncodedWorld
from card.small_files import VARIABLE, with_encoders
from test_card import GPU, run

from mimicmotion_jax.checkpoint import read_config
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.pose.render import DrawStyle
from mimicmotion_jax.synthetic.detector import DetectorConfig, simulate_detection

SIZE = ABLATION_SIZES["tiny"]
STUDENT = SHIPPED.with_name("small-student")
PLAN = AblationPlan(64, 64, 20, (15.0,), (8, 8), DrawStyle(stroke_width=6.0), seed=3, split="test", detector=FIGURE_7)
FAULTLESS = DetectorConfig(
    jitter=0, blur=0, dropped=0, hallucinated=0, duplicated=0, swapped=0, duplicated_hidden=0, spread=0
)


@pytest.fixture(scope="module")
def scene():
    """Test sequence in which the detector takes a hand for the other one."""
    made = (PLAN.make(number) for number in range(20))
    return next(scene for scene in made if 0 < scene["mistaken"][1:].sum() < 15)


@pytest.mark.parametrize("size", ABLATION_SIZES.values(), ids=ABLATION_SIZES.keys())
def test_scenes_are_encoded_in_whole_groups(size):
    assert size.limit % size.encode_scenes == 0
    assert size.test[0] * size.test[1] % (size.encode_scenes * size.scene_frames) == 0


@pytest.mark.parametrize(("size", "source"), [("full", SHIPPED), ("middle", SHIPPED), ("tiny", STUDENT)])
def test_networks_have_the_sizes_of_a_shipped_model(size, source):
    """Otherwise trainings would start from random parameters."""
    found = read_config(source)
    assert with_encoders(ABLATION_SIZES[size].model, found) == found


def test_steps_fit_into_the_share_of_a_run():
    assert fit_steps(315, 0.02, runs=1) == int(315 / 9 / 0.02 / 1.05)
    assert fit_steps(315, 0.02, runs=3) == int(315 / 3 / 0.02 / 1.05)
    assert fit_steps(0, 0.02, runs=1) == 1


def test_skeletons_are_drawn_in_both_ways(scene):
    for name, (shape, dtype) in PLAN.arrays.items():
        assert (scene[name].shape, scene[name].dtype) == (shape, dtype)
    # What is drawn at all is as bright as can be where confidence does not count.
    assert scene["threshold_poses"].max() == 255
    assert scene["threshold_poses"].sum(dtype=int) > scene["poses"].sum(dtype=int) > 0


def test_hands_in_the_place_of_others_are_found(scene):
    exact = scene["exact"]
    assert not mistaken_hands(simulate_detection(exact, 0, FAULTLESS), exact).any()
    swapped = simulate_detection(exact, 0, dataclasses.replace(FAULTLESS, swapped=1))
    seen = (exact.hands_score[:, 0] > 0).any((1, 2))
    np.testing.assert_array_equal(mistaken_hands(swapped, exact), seen)


def make_encoded(numbers):
    """World whose scene n, wherever it lies, has n in all its arrays."""
    frames = PLAN.num_frames
    filled = np.asarray(numbers)[:, None, None, None]
    arrays = {
        "poses": np.broadcast_to(filled, (len(numbers), frames, 1, 1)),
        "threshold_poses": np.broadcast_to(100 + filled, (len(numbers), frames, 1, 1)),
        "hand_mask": np.ones((len(numbers), frames, 8, 8), bool),
    }
    world = types.SimpleNamespace(
        plan=PLAN,
        capacity=len(numbers),
        count=len(numbers),
        kept=lambda: (0, len(numbers)),
        arrays=arrays,
        numbers=np.array(numbers),
    )
    encoded = EncodedWorld(world, None, latent_channels=1, embedding=1, group=1, newest=len(numbers))
    encoded.count = len(numbers)
    times = np.arange(frames)[:, None, None, None]
    encoded.latents[:] = filled[..., None] + times / 100
    encoded.embeddings[:] = filled[..., 0]
    return encoded


def test_rows_of_a_seed_differ_only_in_what_their_name_says():
    config, samples = SIZE.training(SIZE.model, 0), range(8, 16)

    def draw(variant, seed, numbers):
        return variant_samples(make_encoded(numbers), config, VARIANTS[variant], seed)(samples)

    one = draw("full", 1, [0, 1, 2, 3])
    # Another run's scenes came in another order.
    without_hands = draw("no hand enhancement", 1, [2, 0, 3, 1])
    without_confidence = draw("no confidence", 1, [3, 2, 1, 0])
    for name in ("latents", "reference_latents", "embedding", "index"):
        for other in (without_hands, without_confidence):
            np.testing.assert_array_equal(other[name], one[name])
    np.testing.assert_array_equal(without_hands["poses"], one["poses"])
    np.testing.assert_array_equal(without_confidence["poses"], one["poses"] + 100)
    assert one["hand_mask"].all()
    assert without_confidence["hand_mask"].all()
    assert not without_hands["hand_mask"].any()
    assert len({int(scene) for scene in one["embedding"][:, 0]}) > 1
    other_seed = draw("full", 2, [0, 1, 2, 3])
    assert not set(other_seed["index"]) & set(one["index"])
    assert not np.array_equal(other_seed["latents"], one["latents"])


def test_hands_are_scored_where_they_are_and_where_they_are_mistaken(scene):
    truth, mistaken = scene["frames"], scene["mistaken"]
    video = truth.copy()
    video[mistaken] = 255 - video[mistaken]
    found = score(video[None], [scene])
    exact = score(truth[None], [scene])
    assert exact["hand_psnr"] == exact[MISTAKEN] == 100  # equal frames, by the limit
    assert found[MISTAKEN] < found["hand_psnr"] < 100
    elsewhere = truth.copy()
    elsewhere[~mistaken] = 0
    assert score(elsewhere[None], [scene])[MISTAKEN] == 100


def test_jumps_between_windows_are_scored(scene):
    plan = make_plan(20, 8, 3, "none")
    seam = 15  # first frame of the third window: seven frames each after the reference
    video = scene["frames"].copy()
    video[seam:] = np.clip(video[seam:].astype(int) + 40, 0, 255)
    found = score(video[None], [scene], plan)
    differences = np.abs(np.diff(scene["frames"][1:].astype(float), axis=0)).mean((1, 2, 3))
    seams = np.isin(np.arange(2, 20), (8, 15))
    assert found[TRUE_SEAM] == pytest.approx(differences[seams].mean() / differences[~seams].mean(), abs=1e-4)
    assert found[SEAM] > 2 * found[TRUE_SEAM]


def test_pictures_show_all_variants(scene):
    videos = {name: scene["frames"][None] for name in VARIANTS}
    assert mistakes_strip([scene], videos).shape[1] > 9 * 2 * 64
    assert slices_strip([scene], videos).shape[1] > 6 * 4 * 19
    same, inverted = (
        hands_strip([scene], {"full": scene["frames"][None], "other": other[None]})
        for other in (scene["frames"], 255 - scene["frames"])
    )
    changed = np.flatnonzero((same != inverted).any((0, 2)))
    assert changed.min() > 2 / 3 * same.shape[1]
    assert len(changed) > 200  # the last of three panels of 224 pixels


def test_the_plot_of_frame_differences_marks_the_seams(scene):
    frames = scene["frames"]
    still = np.broadcast_to(frames[:1], frames.shape)
    plain = differences_plot(frames, {"full": still}, {"full": []})
    marked = differences_plot(frames, {"full": still}, {"full": [3, 15]})
    changed = np.flatnonzero((plain != marked).any((0, 2)))
    gaps = np.flatnonzero(np.diff(changed) > 1)
    assert len(gaps) == 1  # two dots, beside each other


def make_row(name, seed, psnr):
    return {"name": name, "seed": seed, "scores": {"psnr": psnr, SEAM: 1.0}}


def test_the_table_has_mean_and_deviation_of_complete_seeds(tmp_path):
    results = Results(tmp_path / "ablation.json")
    rows = {row_name(name, seed): make_row(name, seed, 17.0 + seed) for seed in (0, 1) for name in VARIANTS}
    test_set = {"sequences": 1, "frames": 18, "mistaken": 0.125, "hidden_elbow": 0.3}
    plan = {"steps": 2, "clips": 2, "window": 8, "scenes": 4, "size": "64x64", "vae": "abc", "test_set": test_set}
    plan["goes_on"] = True
    baselines = {"reference repeated": {"psnr": 15.5}}
    results.parts["train"] = {"plan": plan | {"baselines": baselines}} | rows
    results.parts["train"][row_name("full", 2)] = make_row("full", 2, 99.0)
    results.parts["train"][row_name("no fusion", 2)] = {"missing": "no time"}
    write_page(results, "train")
    page = (tmp_path / "ablation.md").read_text()
    deviation = np.std([17, 18], ddof=1)
    assert f"| full | ✓ | ✓ | ✓ | 0, 1 | 17.50 ± {deviation:.2f} | 1.000 ± 0.000 |" in page
    assert "| no confidence | ✓ |  | ✓ | 0, 1 |" in page
    assert "| *reference repeated* |  |  |  |  | 15.50 |  |" in page
    assert "4 rows of 15 are missing" in page
    alone = {"full, seed 0": rows["full, seed 0"]}
    assert summarise(table_rows(alone))[0]["spread"] == {"psnr": None, SEAM: None}


@pytest.mark.slow
def test_the_whole_run_and_another_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(STUDENT))
    rows = run(GPU.EXPERIMENTS, "ablation", tmp_path)
    assert rows.keys() == {"train/plan"} | {f"train/{row_name(name, seed)}" for name in VARIANTS for seed in SEEDS}
    assert rows["train/plan"]["scenes"] == SIZE.limit
    assert rows["train/plan"]["goes_on"]
    full, uniform, hands = (rows[f"train/{name}, seed 0"] for name in ("full", "uniform fusion", "no hand enhancement"))
    assert full["history"] == uniform["history"]
    assert full["history"] != hands["history"]
    assert full["history"] != rows["train/full, seed 1"]["history"]
    assert full["scores"]["psnr"] != uniform["scores"]["psnr"]
    assert full["history"][-1]["finite"] == 1
    for name in ("mistakes", "seams", "hands", "differences"):
        assert (tmp_path / f"ablation-{name}.png").stat().st_size > 1000
    page = (tmp_path / "ablation.md").read_text()
    assert page.count("| 0, 1, 2 |") == 5
    # A row that is missing is made again, with as many steps.
    results = Results(tmp_path / "ablation.json")
    results.parts["train"]["full, seed 0"] = {"missing": "no time"}
    results.write()
    again = run(GPU.EXPERIMENTS, "ablation", tmp_path)
    assert again["train/full, seed 0"]["scores"] == pytest.approx(full["scores"], rel=1e-3)
    assert again["train/no fusion, seed 2"] == rows["train/no fusion, seed 2"]
