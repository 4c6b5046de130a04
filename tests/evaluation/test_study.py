"""User studies: blind pages, balanced orders, answers to preferences, and Wilson intervals against the formula."""

import itertools
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from mimicmotion_jax import InputError
from mimicmotion_jax.cli import study as command
from mimicmotion_jax.evaluation.study.build import study_page
from mimicmotion_jax.evaluation.study.files import Answers, Clip, Study, parse_answers, read_study, save_answers
from mimicmotion_jax.evaluation.study.orders import draw_orders
from mimicmotion_jax.evaluation.study.report import preference, report_page, summarise
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

NAMES = ("dance", "wave")


def write_video(path, grey, size=(32, 48), num_frames=4, fps=20):
    with open_writer(path, fps, *size, metadata={"seed": path.parent.name}, progress=False) as writer:
        writer.write(np.full((num_frames, size[1], size[0], 3), grey, np.uint8))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three methods with two videos each, told apart by their grey."""
    folder = tmp_path_factory.mktemp("videos")
    for number, method in enumerate(("ours", "magicpose", "moore")):
        for place, name in enumerate(NAMES):
            write_video(folder / method / f"{name}.mp4", 60 + 60 * number + 20 * place)
    return folder


@pytest.fixture
def given(videos):
    return [f"{name}={videos / name}" for name in ("ours", "magicpose", "moore")]


def make(output, given, *more):
    assert command.main(["--videos", *map(str, given), "--output", str(output), *more]) == 0
    return read_study(output)


def answer(study, participant, order, prefers, minutes=0):
    """Answers of a participant who prefers the method where `prefers(baseline, clip)` is true."""
    choices = []
    for left, right in study.orders[order]:
        is_left = study.clips[left].method == study.methods[0]
        other = study.clips[right if is_left else left]
        chosen = "left" if prefers(other.method, other.name) == is_left else "right"
        choices.append({"left": left, "right": right, "chosen": chosen, "seconds": 1.5, "plays": 1})
    times = [datetime(2026, 1, 2, tzinfo=UTC) + timedelta(minutes=minutes + part) for part in (0, 5)]
    return {
        "study": study.study, "participant": participant, "order": order, "choices": choices,
        "started": times[0].isoformat(), "finished": times[1].isoformat(),
    }  # fmt: skip


def wilson(preferred, total):
    """Roots of (share - p)^2 = z^2 p (1 - p) / total, which define the interval."""
    z, share = 1.959963984540054, preferred / total
    return sorted(np.roots([1 + z * z / total, -(2 * share + z * z / total), share * share]))


@pytest.mark.parametrize(("preferred", "total"), [(9, 10), (0, 7), (7, 7), (163, 216), (1, 1)])
def test_intervals_are_wilsons(preferred, total):
    found = preference(preferred, total)
    np.testing.assert_allclose(found["interval"], wilson(preferred, total), atol=1e-9)
    assert found["share"] == preferred / total


def test_an_interval_worked_by_hand():
    """9 of 10: centre (0.9 + 3.8415 / 20) / 1.38415, half width 1.96 sqrt(0.09 / 10 + 3.8415 / 400) / 1.38415."""
    np.testing.assert_allclose(preference(9, 10)["interval"], [0.78899 - 0.19314, 0.78899 + 0.19314], atol=2e-5)


def test_sides_are_balanced_and_places_uniform():
    orders = draw_orders(num_baselines=3, num_clips=5, num_pairs=5, num_participants=2000, seed=1)
    for order in orders:
        assert sorted((s.baseline, s.clip) for s in order) == [*itertools.product(range(3), range(5))]
        for baseline in range(3):
            assert sum(s.method_left for s in order if s.baseline == baseline) in (2, 3)
    left = Counter((s.baseline, s.clip) for order in orders for s in order if s.method_left)
    assert set(left.values()) == {1000}  # exactly: each second participant sees the sides exchanged
    places = np.zeros((15, 15))
    for order in orders:
        for place, s in enumerate(order):
            places[s.baseline * 5 + s.clip, place] += 1
    assert chisquare(places.ravel()).pvalue > 1e-3
    firsts = np.array([order[0].method_left for order in orders])
    assert 0.45 < firsts.mean() < 0.55
    assert orders == draw_orders(3, 5, 5, 2000, 1)
    assert orders[:20] != draw_orders(3, 5, 5, 20, 2)


def test_some_of_many_clips_are_drawn_alike():
    orders = draw_orders(num_baselines=2, num_clips=10, num_pairs=3, num_participants=1000, seed=0)
    assert all(Counter(s.baseline for s in order) == {0: 3, 1: 3} for order in orders)
    assert all(len({(s.baseline, s.clip) for s in order}) == 6 for order in orders)
    counts = Counter((s.baseline, s.clip) for order in orders for s in order)
    assert chisquare([*counts.values()]).pvalue > 1e-3
    assert len(counts) == 20


def test_the_participants_part_tells_no_method(given, tmp_path):
    study = make(tmp_path / "study", given, "--participants", "6")
    page = tmp_path / "study" / "page"
    content = (page / "index.html").read_text()
    files = sorted(page.rglob("*.mp4"))
    assert {path.stem for path in files} == set(study.clips)
    everything = content.encode() + b"".join(path.read_bytes() + path.name.encode() for path in files)
    for secret in ("ours", "magicpose", "moore", *NAMES, "seed"):
        assert secret not in re.sub(r"yours|hours|seconds", "", everything.decode("latin1")).lower()
    assert not re.search(r"https?://|(?:src|href)=\"", content)  # all there is is in the folder
    assert all(re.fullmatch(r"[0-9a-f]{8}", name) for name in study.clips)
    other = make(tmp_path / "other", given, "--participants", "6")
    assert set(other.clips).isdisjoint(study.clips)  # the same seed, other names


def test_clips_show_the_methods_videos_in_the_drawn_orders(given, tmp_path):
    studies = [make(tmp_path / name, given, "--seed", "3", "--participants", "4") for name in "ab"]
    decoded = [[[(s.clips[left], s.clips[right]) for left, right in order] for order in s.orders] for s in studies]
    assert decoded[0] == decoded[1]  # a matter of the seed
    for order in decoded[0]:
        pairs = {(frozenset((left.method, right.method)), left.name) for left, right in order}
        assert pairs == {(frozenset(("ours", b)), n) for b in ("magicpose", "moore") for n in NAMES}
        assert all(left.name == right.name for left, right in order)
    for clip, origin in studies[0].clips.items():
        grey = 60 + 60 * ("ours", "magicpose", "moore").index(origin.method) + 20 * NAMES.index(origin.name)
        frames = np.stack(list(open_video(tmp_path / "a" / "page" / "clips" / f"{clip}.mp4").frames()))
        assert frames.shape == (4, 48, 32, 3)
        np.testing.assert_allclose(frames, grey, atol=3)


def test_clips_are_cut_to_the_shortest_and_to_squares(tmp_path):
    write_video(tmp_path / "mine.mp4", 90, size=(48, 64), num_frames=8, fps=20)
    write_video(tmp_path / "theirs.mp4", 90, size=(64, 32), num_frames=6, fps=10)
    given = [tmp_path / "mine.mp4", tmp_path / "theirs.mp4"]
    with pytest.raises(InputError, match=r"48x64 for mine and 64x32 for theirs.*--square"):
        make(tmp_path / "study", given)
    study = make(tmp_path / "study", given, "--square")
    assert study.methods == ["mine", "theirs"]
    found = {origin.method: open_video(tmp_path / "study" / "page" / "clips" / f"{clip}.mp4")
             for clip, origin in study.clips.items()}  # fmt: skip
    assert [(found[m].width, found[m].height, found[m].num_frames) for m in study.methods] == [(48, 48, 8), (32, 32, 4)]


def test_answers_become_preferences(given, tmp_path, capsys):
    """Counted by hand: against magicpose 5 of 6 participants prefer ours for both clips, against moore all for one."""
    folder = tmp_path / "study"
    study = make(folder, given, "--participants", "4")
    (folder / "answers").mkdir()
    for number in range(6):
        found = answer(
            study, f"p{number}", number % 4, lambda b, c, n=number: n < 5 if b == "magicpose" else c == "dance"
        )
        (folder / "answers" / f"p{number}.json").write_text(json.dumps(found))
    capsys.readouterr()
    assert command.main(["--report", str(folder)]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert (report["method"], report["participants"], report["left_out"]) == ("ours", 6, [])
    first, second = report["baselines"]["magicpose"], report["baselines"]["moore"]
    assert (first["preferred"], first["total"]) == (10, 12)
    assert (second["preferred"], second["total"]) == (6, 12)
    assert {name: (c["preferred"], c["total"]) for name, c in second["clips"].items()} == {
        "dance": (6, 6),
        "wave": (0, 6),
    }
    np.testing.assert_allclose(first["interval"], wilson(10, 12))
    assert report["left"]["total"] == 24
    assert report["seconds_to_answer"] == 1.5
    page, printed = (folder / "report.html").read_text(), capsys.readouterr().out
    for text in (page, printed):
        assert "83.3%" in text
        assert "55.2% – 95.3%" in re.sub(" +", " ", text)  # of 10 of 12, by an independent calculator
    assert "10 of 12" in page
    assert not re.search(r"(?:src|href)=\"|<script", page)


def test_damaged_foreign_and_repeated_files_are_named_and_left_out(given, tmp_path, capsys):
    folder, sent = tmp_path / "study", tmp_path / "sent"
    study, other = make(folder, given), make(tmp_path / "other", given)
    sent.mkdir()
    good = answer(study, "anna", 3, lambda *_: True)
    changed = json.loads(json.dumps(good))
    changed["choices"][0]["left"], changed["choices"][0]["right"] = good["choices"][0]["right"], "x"
    files = {
        "good.json": json.dumps(good),
        "good (1).json": json.dumps(good),
        "later.json": json.dumps(answer(study, "anna", 2, lambda *_: False, minutes=60)),
        "cut.json": json.dumps(good)[:200],
        "empty.json": "",
        "list.json": "[1, 2]",
        "short.json": json.dumps({**good, "choices": good["choices"][:-1]}),
        "changed.json": json.dumps(changed),
        "number.json": json.dumps({**good, "order": 5000}),
        "path.json": json.dumps({**good, "participant": "../../anna"}),
        "foreign.json": json.dumps(answer(other, "bert", 0, lambda *_: True)),
    }
    for name, text in files.items():
        (sent / name).write_text(text)
    (sent / "binary.json").write_bytes(b"\xff\xfe\x00" * 50)
    capsys.readouterr()
    assert command.main(["--report", str(folder), str(sent), str(sent / "good.json")]) == 1
    error = capsys.readouterr().err
    report = json.loads((folder / "report.json").read_text())
    assert report["participants"] == 1
    assert report["baselines"]["moore"]["preferred"] == 2
    bad = sorted(set(files) - {"good.json", "good (1).json", "later.json"} | {"binary.json"})
    assert sorted(sentence.split(".json")[0] + ".json" for sentence in report["left_out"]) == bad
    assert len(error.splitlines()) == len(bad) + 2  # one sentence each, and one for each repetition
    assert "later.json is of the same participant as" in error
    assert "foreign.json answers another study" in error
    page = (folder / "report.html").read_text()
    assert all(name in page for name in bad)


def test_saved_answers_are_never_overwritten(given, tmp_path):
    study = make(tmp_path / "study", given)
    first, second = (
        parse_answers(json.dumps(answer(study, "7", 7, lambda *_, to=to: to)).encode(), study, "it")
        for to in (True, False)
    )
    paths = [save_answers(tmp_path / "answers", one) for one in (first, second, first)]
    assert [path.name for path in paths] == ["7.json", "7-2.json", "7-3.json"]
    assert Answers.model_validate_json(paths[0].read_bytes()) == first
    assert Answers.model_validate_json(paths[1].read_bytes()) == second


def test_wrong_input_is_one_sentence_and_writes_nothing(videos, given, tmp_path):
    write_video(tmp_path / "fewer" / "dance.mp4", 100)
    write_video(tmp_path / "text" / "dance.mp4", 100)
    (tmp_path / "text" / "wave.mp4").write_text("This is a letter, not a video.")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    write_video(tmp_path / "other" / "ours" / "dance.mp4", 100)
    before = sorted(tmp_path.rglob("*"))
    ours = given[0]
    for message, arguments in {
        r"there is no folder .*nowhere; check the path": [ours, tmp_path / "nowhere"],
        r"b has no video for wave of ours; each method needs the same clips": [ours, f"b={tmp_path / 'fewer'}"],
        r"ours has no video for wave of b": [f"ours={tmp_path / 'fewer'}", f"b={videos / 'moore'}"],
        r"a study compares methods": [ours],
        r"wave\.mp4 is not a video": [ours, tmp_path / "text"],
        r"empty holds no videos": [ours, tmp_path / "empty"],
        r"ours and b are the same videos": [ours, f"b={videos / 'ours'}"],
        r"two methods are called ours": [ours, tmp_path / "other" / "ours"],
        r"--pairs must be 1 to 2": [*given, "--pairs", "3"],
        r"--participants must be at least 1": [*given, "--participants", "0"],
        r"--seed must be 0 or more": [*given, "--seed", "-1"],
    }.items():
        with pytest.raises(InputError, match=message):
            make(tmp_path / "study", arguments)
    with pytest.raises(InputError, match="taken exists already, and a study is never overwritten"):
        make(tmp_path / "taken", given)
    with pytest.raises(InputError, match="--output DIR"):
        command.main(["--videos", *given])
    for message, places in {
        "give the folder of one study": [tmp_path / "taken"],
        "there are no answers at": [tmp_path / "study", tmp_path / "nothing.json"],
        "there are no answers yet": [tmp_path / "study", tmp_path / "empty"],
    }.items():
        if not (tmp_path / "study").exists():
            make(tmp_path / "study", given)
            made = sorted(path for path in tmp_path.rglob("*") if path.is_relative_to(tmp_path / "study"))
        with pytest.raises(InputError, match=message):
            command.main(["--report", *map(str, places)])
    (tmp_path / "study" / "key.json").write_text("{}")
    with pytest.raises(InputError, match=r"key\.json is damaged"):
        command.main(["--report", str(tmp_path / "study")])
    assert sorted(tmp_path.rglob("*")) == sorted([*before, *made])


def test_names_cannot_put_anything_into_the_pages():
    nasty = "</script><script>alert(1)</script>"
    study = Study(
        study="0f", software="x", question=nasty, seed=0, methods=["<b>ours", nasty],
        clips={"a": Clip(method="<b>ours", name=nasty), "b": Clip(method=nasty, name=nasty)}, orders=[[("a", "b")]],
    )  # fmt: skip
    page = study_page(study, Fraction(2))
    assert page.count("<script") == 2
    answers = Answers.model_validate(answer(study, "p", 0, lambda *_: True))
    report = report_page(summarise(study, [answers], ["<i>bad.json"]), ["<i>bad.json"])
    assert "<script" not in report
    assert "<b>ours" not in report
    assert "<i>" not in report
