"""Scores of existing videos against themselves and worse ones, reuse of scores, and the results page."""

import html
import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mimicmotion_jax import InputError
from mimicmotion_jax.evaluation import report
from mimicmotion_jax.evaluation.comparison import compare
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.protocols import PROTOCOLS
from mimicmotion_jax.evaluation.results import METRICS, collect
from mimicmotion_jax.evaluation.scores import Scorer
from mimicmotion_jax.evaluation.sequences import find_sequences
from mimicmotion_jax.metrics import MetricNetwork
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.hands import hand_boxes
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer


@pytest.fixture(scope="module")
def itself(data, score, tmp_path_factory):
    """Results of the test set against itself, and their folder."""
    output = tmp_path_factory.mktemp("itself") / "out"
    return score(data, data, output), output


def frames_of(data, name):
    return np.stack(list(open_video(data / name).frames()))


def psnr_by_hand(frames, true):
    pairs = zip(frames, true, strict=True)
    return np.mean([10 * np.log10(255**2 / np.mean((a - b.astype(float)) ** 2)) for a, b in pairs])


def test_a_folder_against_itself(itself, data):
    results, _ = itself
    assert results["summary"]["generated"] == {"ssim": 1.0, "psnr": 100.0, "foreground_iou": 1.0, "hand_psnr": 100.0}
    assert results["frame_difference"]["generated"] == results["frame_difference"]["true"] > 0
    repeated, hands = [], []
    for name in "ab":
        frames = frames_of(data, name)
        repeated.append(psnr_by_hand(np.repeat(frames[:1], 10, axis=0), frames[1:]))
        boxes, valid = hand_boxes(load_keypoints(data / f"{name}.npz"))
        for index in range(1, 11):
            inside = np.zeros((64, 48), bool)
            for left, top, right, bottom in boxes[index][valid[index]] * [48, 64, 48, 64]:
                inside[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
            error = ((frames[index] - frames[0].astype(float)) ** 2)[inside].mean()
            hands.append(100.0 if error == 0 else 10 * np.log10(255**2 / error))
    baseline = results["summary"]["repeat"]
    assert baseline["psnr"] == pytest.approx(np.mean(repeated), abs=1e-9)
    assert baseline["hand_psnr"] == pytest.approx(np.mean(hands), abs=1e-9)
    assert results["psnr_above_repeat"] == pytest.approx(100 - np.mean(repeated))
    # The square is 16 pixels wide and after k frames 2 k pixels on; in b it jumps back once it is at the right.
    shifts = [2 * k for k in range(1, 11)] + [abs((2 * k + 5) % 32 - 5) for k in range(1, 11)]
    shared = [max(0, 16 - shift) for shift in shifts]
    assert baseline["foreground_iou"] == pytest.approx(np.mean([s / (32 - s) for s in shared]))


def test_the_ceiling_of_a_protocol_is_stated_with_its_hash(itself):
    results, output = itself
    assert results["protocol"]["sha256"] == PROTOCOLS["synthetic"].sha256
    assert json.loads((output / "results.json").read_text()) == results
    assert len(results["notes"]) == 3
    for file in ("resnet-50-kinetics.pth", "i3d_pretrained_400.pt", "alex.pth"):
        assert sum(file in note for note in results["notes"]) == 1


@pytest.fixture(scope="module")
def shuffled(data, tmp_path_factory, write):
    folder = tmp_path_factory.mktemp("shuffled")
    for name in "ab":
        write(folder / name, np.random.default_rng(0).permutation(frames_of(data, name)))
    return folder


def test_shuffled_frames_are_worse(itself, shuffled, data, tmp_path, score):
    results = score(shuffled, data, tmp_path)
    true = np.concatenate([frames_of(data, name)[1:] for name in "ab"])
    generated = np.concatenate([frames_of(shuffled, name)[1:] for name in "ab"])
    for name, value in results["summary"]["generated"].items():
        assert value < itself[0]["summary"]["generated"][name]
    assert results["frame_difference"]["generated"] > results["frame_difference"]["true"]
    errors = ((generated - true.astype(float)) ** 2).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        expected = np.minimum(10 * np.log10(255**2 / errors), 100).mean()
    assert results["summary"]["generated"]["psnr"] == pytest.approx(expected)


def test_lengths_and_sizes_follow_the_rules(data, tmp_path, score, write, caplog):
    generated = tmp_path / "generated"
    a, b = frames_of(data, "a"), frames_of(data, "b")
    large = [np.asarray(Image.fromarray(frame).resize((96, 128), Image.Resampling.NEAREST)) for frame in b[1:6]]
    write(generated / "a", np.concatenate([a[1:], a[:3]]))  # without the reference, and three frames too long
    write(generated / "b", np.stack(large))  # without the reference, five frames too short, twice the size
    results = score(generated, data, tmp_path / "out")
    one, two = results["sequences"]
    assert one["frames"] == {"true": 10, "generated": 13, "compared": 10}
    assert one["scores"]["generated"]["psnr"] == 100
    assert two["frames"] == {"true": 10, "generated": 5, "compared": 5}
    assert two["size"] == [64, 48]
    assert two["scores"]["generated"]["ssim"] > 0.85
    assert sum("were compared" in note for note in results["notes"]) == 2
    warnings = [m for m in caplog.messages if "shorter than the true ones" in m]
    assert len(warnings) == 1
    assert warnings[0].endswith("compared after the reference: b 5 of 10.")
    caplog.clear()
    score(generated, data, tmp_path / "first", num_frames=5)
    assert "shorter" not in caplog.text
    values = [row["scores"]["generated"]["psnr"] for row in (one, two)]
    assert results["summary"]["generated"]["psnr"] == pytest.approx((10 * values[0] + 5 * values[1]) / 15)


def test_one_video_file_per_sequence(data, tmp_path, score):
    for name in "ab":
        with open_writer(tmp_path / "videos" / f"{name}.mp4", 12, 48, 64, crf=0) as writer:
            writer.write(frames_of(data, name))
    results = score(tmp_path / "videos", data, tmp_path / "out", num_frames=4)
    assert results["sequences"][0]["frames"]["compared"] == 4
    assert 25 < results["summary"]["generated"]["psnr"] < 100


def test_current_scores_are_kept(itself, data, tmp_path, score):
    results, before = itself
    output = tmp_path / "out"
    shutil.copytree(before, output)
    kept = {path: path.stat().st_mtime_ns for path in (output / "scores").iterdir()}
    assert sorted(path.name for path in kept) == ["a.json", "b.json"]
    assert score(data, data, output)["summary"] == results["summary"]
    assert {path: path.stat().st_mtime_ns for path in (output / "scores").iterdir()} == kept
    (output / "scores" / "a.json").unlink()
    (output / "scores" / "b.json").write_text("{ half a fi")
    assert score(data, data, output)["sequences"] == results["sequences"]
    assert all(path.stat().st_mtime_ns != time for path, time in kept.items())
    for name in ("columns", "differences", "seams", "seam_discontinuity"):
        record = json.loads((output / "scores" / "a.json").read_text())
        del record[name]
        (output / "scores" / "a.json").write_text(json.dumps(record))
        assert score(data, data, output)["sequences"] == results["sequences"]


def test_changed_videos_are_scored_again(shuffled, data, tmp_path, score):
    generated, output = tmp_path / "generated", tmp_path / "out"
    shutil.copytree(shuffled, generated)
    score(generated, data, output)
    times = {name: (output / "scores" / f"{name}.json").stat().st_mtime_ns for name in "ab"}
    Image.fromarray(frames_of(data, "a")[3]).save(generated / "a" / "00003.png")
    score(generated, data, output)
    after = {name: (output / "scores" / f"{name}.json").stat().st_mtime_ns for name in "ab"}
    assert after["a"] != times["a"]
    assert after["b"] == times["b"]


def test_protocols_do_not_share_a_folder(itself, data, tmp_path, score, monkeypatch):
    output = tmp_path / "out"
    shutil.copytree(itself[1], output)
    monkeypatch.setattr("mimicmotion_jax.evaluation.protocols.RULES", 99)
    with pytest.raises(InputError, match="holds results of protocol 'synthetic' or of another version"):
        score(data, data, output)


class Moments(nnx.Module):
    """Replaces a large network: means and deviations of a clip's channels."""

    input_size = 16

    def __call__(self, clips):
        return jnp.concatenate([clips.mean((1, 2, 3)), clips.std((1, 2, 3))], axis=-1)


def test_frechet_distances(draw, write, tmp_path):
    """The distance is zero for a folder against itself, else the textbook's formula over all windows."""
    for seed, (name, length) in enumerate({"a": 21, "b": 19, "c": 5}.items()):
        write(tmp_path / "data" / name, draw(seed, length)[0])
    protocol, failures = PROTOCOLS["synthetic"], Failures(tmp_path / "log")
    sequences = find_sequences(tmp_path / "data", protocol, failures, progress=False)
    comparisons = [compare(sequence, {"generated": sequence.reader}, protocol) for sequence in sequences]
    networks = {"i3d": MetricNetwork("i3d", Moments(), {"file": "abc"})}
    output = tmp_path / "out"

    def run(networks: dict) -> dict:
        scorer = Scorer(networks, output, progress=False)
        scores = {comparison.name: scorer(comparison) for comparison in comparisons}
        return collect(protocol, comparisons, scores, scorer, {"left_out": {}})

    results = run(networks)
    assert results["summary"]["generated"]["fvd"] == pytest.approx(0, abs=1e-6)
    assert any("leaves out c, which" in note for note in results["notes"])
    pooled = {}
    for column in ("true", "repeat"):
        files = [np.load(output / "features" / "i3d" / f"{name}.{column}.npz") for name in "ab"]
        pooled[column] = np.concatenate([file["features"] for file in files]).astype(np.float64)
        assert len(pooled[column]) == (20 - 15) + (18 - 15)
    mean = [features.mean(0) for features in pooled.values()]
    cov = [np.cov(features, rowvar=False) for features in pooled.values()]
    roots = np.sqrt(np.abs(np.linalg.eigvals(cov[0] @ cov[1])))  # their sum is the trace of the product's root
    expected = ((mean[0] - mean[1]) ** 2).sum() + np.trace(cov[0] + cov[1]) - 2 * roots.sum()
    assert results["summary"]["repeat"]["fvd"] == pytest.approx(expected, rel=1e-3)

    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")}
    run(networks)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")} == times
    run({"i3d": MetricNetwork("i3d", Moments(), {"file": "other"})})
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())


def test_the_page_shows_all_numbers_and_needs_no_other_file(itself):
    results, output = itself
    page = (output / "index.html").read_text()
    shown = re.sub(r"<details.*</details>", "", page, flags=re.DOTALL)  # not the raw file
    for scores in [*results["summary"].values(), *(s for row in results["sequences"] for s in row["scores"].values())]:
        for name, value in scores.items():
            assert f"<td>{value:.{METRICS[name].digits}f}</td>" in shown
    assert f"{results['psnr_above_repeat']:+.2f} dB" in shown
    for value in results["frame_difference"].values():
        assert f"{value:.5f}" in shown
    for sha256 in (results["protocol"]["sha256"], results["options_sha256"]):
        assert sha256 in shown
    for text in (results["date"], results["command"], results["protocol"]["name"], *results["notes"]):
        assert text in html.unescape(shown)
    links = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert len(links) == 2 * 3
    assert all(link.startswith("data:") for link in links)
    assert "@import" not in page
    assert "url(" not in page
    videos = re.findall(r'data:video/mp4;base64,([^"]+)', page)
    assert len(videos) == 2


def test_a_page_of_many_sequences_says_what_it_leaves_out(itself, data, tmp_path, score, monkeypatch):
    monkeypatch.setattr(report, "MAX_SHOWN", 1)
    score(data, data, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<video") == 1
    assert "Shown are the first 1; the numbers are of all 2." in page
