"""Training data is split at cuts and filtered; everything that is left out is counted with its reason."""

import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import pytest

from mimicmotion_jax.data.dataset import Records
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.dancer import demo_motion

WIDTH, HEIGHT, FPS = 160, 96, 20


def shot(seed: int, num_frames: int) -> np.ndarray:
    """Frames of a room of coloured rectangles in which a bright one moves."""
    random = np.random.default_rng(seed)
    room = np.kron(random.integers(0, 180, (6, 10, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    frames = np.repeat(room[None], num_frames, axis=0)
    for number, frame in enumerate(frames):
        left = 60 + 4 * (number % 8)
        frame[20:80, left : left + 20] = 240
    return frames


def dance(num_frames: int, x: float = 0.0, scale: float = 1.0) -> Keypoints:
    keypoints = demo_motion(num_frames, FPS, WIDTH, HEIGHT)
    moved = {name: getattr(keypoints, name) * scale + np.float32([x, 0]) for name in ("body", "hands", "faces")}
    return dataclasses.replace(keypoints, **moved)


def without(keypoints: Keypoints, *names: str) -> Keypoints:
    return dataclasses.replace(
        keypoints, **{f"{name}_score": 0 * getattr(keypoints, f"{name}_score") for name in names}
    )


def crowd(*people: Keypoints) -> Keypoints:
    columns = {name: np.concatenate([getattr(one, name) for one in people], axis=1) for name in ARRAYS}
    return dataclasses.replace(people[0], **columns)


def statue(num_frames: int) -> Keypoints:
    keypoints = dance(1)
    return dataclasses.replace(
        keypoints, **{name: np.repeat(getattr(keypoints, name), num_frames, 0) for name in ARRAYS}
    )


def write(path: Path, frames: np.ndarray, keypoints: Keypoints) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"crf": "15"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    save_keypoints(keypoints, path.with_suffix(".npz"))


def run(folder: Path, output: Path, **options):
    summary = prepare(VideoFolder(folder), output, PrepareConfig(**options), progress=False)
    assert json.loads((output / "summary.json").read_text()) == dataclasses.asdict(summary)
    return summary


def test_a_video_is_split_at_its_cuts(tmp_path):
    """Two shots of different length and a short one between; every record shows one room and its own keypoints."""
    frames = np.concatenate([shot(1, 20), shot(2, 9), shot(3, 31)])
    keypoints = dance(60)
    write(tmp_path / "videos" / "a.mp4", frames, keypoints)
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert (summary.prepared, summary.records, summary.frames) == (1, 2, 51)
    assert summary.left_out == {"a.mp4[20:29]": "it has 9 frames, and min_frames is 17."}
    assert (summary.skipped, summary.reasons) == ({}, {"short": 1})
    assert "none skipped, 1 stretch left out:\n  a.mp4[20:29]: it has 9 frames" in str(summary)
    for record, (start, stop) in zip(Records(tmp_path / "out"), [(0, 20), (29, 60)], strict=True):
        assert (record.name, record.num_frames) == (f"a.mp4[{start}:{stop}]", stop - start)
        assert np.median(np.abs(record.frames(range(stop - start)).astype(int) - frames[start:stop])) < 4
        np.testing.assert_array_equal(record.keypoints.body, keypoints.body[start:stop])
    assert run(tmp_path / "videos", tmp_path / "out", split_cuts=False).records == 1


def test_a_jump_of_the_person_is_a_cut_and_long_shots_are_still_cut(tmp_path):
    """The same room throughout: at 30 the dancer is elsewhere; at most 1 s a part."""
    there = in_turn(dance(30, x=-0.2, scale=0.5), dance(50, x=0.6, scale=0.5))
    write(tmp_path / "videos" / "a.mp4", shot(1, 80), there)
    run(tmp_path / "videos", tmp_path / "out", max_seconds=1.0, min_frames=5)
    names = [record.name for record in Records(tmp_path / "out")]
    assert names == [f"a.mp4[{a}:{b}]" for a, b in ((0, 15), (15, 30), (30, 46), (46, 63), (63, 80))]


def in_turn(*parts: Keypoints) -> Keypoints:
    return Keypoints.concatenate(parts)


FLAWED = {  # keypoints of 40 frames, the word, the sentence, and the option that accepts them
    "several people": (
        lambda: crowd(dance(40), dance(40, x=0.3, scale=0.8)),
        "100% of its frames show somebody else as well, and max_crowd is 10%.",
        {"max_crowd": 1.0},
    ),
    "hands": (
        lambda: dataclasses.replace(dance(40), hands_score=np.float32(0.2) + without(dance(40), "hands").hands_score),
        "0% of its frames show a hand, and min_hands is 5%.",
        {"min_hands": 0.0},
    ),
    "motion": (
        lambda: statue(40),
        "the person moves by 0.000 body sizes, and min_motion is 0.005.",
        {"min_motion": 0.0},
    ),
}


def test_unfit_videos_are_skipped_with_their_reason(tmp_path):
    """One bad video of each kind and a good one; each option accepts its own kind only."""
    for number, (flaw, (make, _, _)) in enumerate(FLAWED.items()):
        write(tmp_path / "videos" / f"{flaw}.mp4", shot(number, 40), make())
    write(tmp_path / "videos" / "good.mp4", shot(9, 40), dance(40))
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert summary.skipped == {f"{flaw}.mp4": sentence for flaw, (_, sentence, _) in FLAWED.items()}
    assert (summary.reasons, summary.left_out) == (dict.fromkeys(FLAWED, 1), {})
    assert [record.name for record in Records(tmp_path / "out")] == ["good.mp4"]
    accepted: dict[str, float] = {}
    for number, (_, _, accepting) in enumerate(FLAWED.values(), start=2):
        accepted |= accepting
        assert run(tmp_path / "videos", tmp_path / "out", **accepted).prepared == number


def test_a_still_in_a_video_is_left_out(tmp_path):
    """A slide of 1.5 s after a shot; the person on it is detected like any other."""
    frames = np.concatenate([shot(1, 30), np.repeat(shot(2, 1), 30, axis=0), shot(3, 25)])
    write(tmp_path / "videos" / "a.mp4", frames, dance(85))
    summary = run(tmp_path / "videos", tmp_path / "out")
    assert summary.left_out == {"a.mp4[30:60]": "the picture stands still for 1.5 s, and max_still is 1."}
    assert summary.reasons == {"still picture": 1}
    assert [record.name for record in Records(tmp_path / "out")] == ["a.mp4[0:30]", "a.mp4[60:85]"]
    assert run(tmp_path / "videos", tmp_path / "out", max_still=2.0).records == 3


def test_a_video_of_which_nothing_is_left(tmp_path):
    frames = np.concatenate([shot(1, 20), np.repeat(shot(2, 1), 30, axis=0), shot(3, 9)])
    write(tmp_path / "videos" / "a.mp4", frames, dance(59))
    bystander = crowd(dance(20, x=0.5, scale=0.2), dance(20))
    write(tmp_path / "videos" / "b.mp4", shot(5, 20), bystander)
    assert run(tmp_path / "videos", tmp_path / "out", min_frames=20, max_crowd=0.0).prepared == 2  # one is too small
    with pytest.raises(
        InputError, match=r"none of the 2 videos can be used; a\.mp4: none of its 3 stretches can be used"
    ):
        run(tmp_path / "videos", tmp_path / "out", min_frames=20, min_motion=1.0)
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["skipped"]["a.mp4"] == "none of its 3 stretches can be used; see left_out."
    assert list(written["left_out"]) == ["a.mp4[0:20]", "a.mp4[20:50]", "a.mp4[50:59]"]
    assert written["reasons"] == {"motion": 2, "short": 1, "still picture": 1}


def test_standing_still_for_a_moment_and_keypoints_made_without_hands_are_no_flaws(tmp_path):
    write(tmp_path / "videos" / "a.mp4", shot(1, 19), statue(19))
    write(tmp_path / "videos" / "b.mp4", shot(2, 20), without(dance(20), "hands", "faces"))
    assert run(tmp_path / "videos", tmp_path / "out").prepared == 2


def test_who_is_followed_is_chosen_for_each_shot(tmp_path):
    """Columns change hands at a cut: the large dancer is 0 before and 1 after."""
    before = crowd(dance(20), without(dance(20), "body", "hands", "faces"))
    after = crowd(without(dance(20), "body", "hands", "faces"), dance(20, scale=0.7))
    write(tmp_path / "videos" / "a.mp4", np.concatenate([shot(1, 20), shot(2, 20)]), in_turn(before, after))
    assert run(tmp_path / "videos", tmp_path / "out").records == 2
    for record, expected in zip(Records(tmp_path / "out"), (before.person(0), after.person(1)), strict=True):
        np.testing.assert_array_equal(record.keypoints.body, expected.body)
