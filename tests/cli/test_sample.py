"""`sample.py` as its user runs it: one video, many jobs, and every kind of bad input ending in one sentence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from tiny import FEW, SIDE

from mimicmotion_jax import InputError
from mimicmotion_jax.checkpoint import save_checkpoint
from mimicmotion_jax.cli import sample
from mimicmotion_jax.cli.job_lists import load_pipeline
from mimicmotion_jax.convert.lora import write_lora
from mimicmotion_jax.inference.options import GenerateConfig, load_options
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.lora import LowRank, linear_layers
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.runtime.atomic_files import exclusive
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.provenance import read_provenance

ROOT = Path(__file__).resolve().parents[2]

FRAMES, FPS = 7, 12.5  # one window, beside the reference
FAST = FEW | {"width": SIDE, "height": SIDE, "num_inference_steps": 1}
OPTIONS = [f"{name}={value}" for name, value in FAST.items()]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory) -> Path:
    """A checkpoint, a reference picture with its pose, a motion."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "checkpoint").symlink_to(tiny_checkpoint)
    picture, pose = demo_reference(192, 320)
    Image.fromarray(picture).save(folder / "person.png")
    save_keypoints(pose, folder / "person.npz")
    save_keypoints(demo_motion(FRAMES, FPS, 192, 320), folder / "dance.npz")
    return folder


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, arguments)])
    return sample.main()


def one_video(folder: Path, output: Path, *more) -> list:
    inputs = ["--image", folder / "person.png", "--image-pose", folder / "person.npz", "--motion", folder / "dance.npz"]
    return ["--devices", 1, "--checkpoint", folder / "checkpoint", *inputs, "--output", output, *OPTIONS, *more]


def test_a_video_keeps_frame_rate_and_length(folder, tmp_path, monkeypatch):
    output = tmp_path / "out.mp4"
    assert run(monkeypatch, *one_video(folder, output, "--save-pose", "seed=7", "stride=2")) == 0
    video = open_video(output)
    assert (video.num_frames, video.fps, video.width, video.height) == (4, FPS / 2, SIDE, SIDE)
    assert read_provenance(output)["seed"] == "7"
    pose = load_keypoints(tmp_path / "out_pose.npz")
    assert (pose.num_frames, pose.fps, pose.width, pose.height) == (4, FPS / 2, SIDE, SIDE)
    assert open_video(tmp_path / "out_pose.mp4").num_frames == 4


def test_loras_are_merged_by_their_strengths(folder, tmp_path, tiny_pipeline):
    layer = linear_layers(tiny_pipeline.unet)["time_embedding.linear_2"]
    pair = LowRank(np.ones((layer.in_features, 2), np.float32), np.ones((2, layer.out_features), np.float32))
    write_lora(tmp_path / "lora", {"time_embedding.linear_2": pair}, {}, tiny_pipeline.config)
    loras = ["--lora", f"{tmp_path / 'lora'}", "--lora", f"{tmp_path / 'lora'}:-0.25"]
    args = sample.parse_args(["--checkpoint", str(folder / "checkpoint"), *loras, "--devices", "1"])
    pipeline = load_pipeline(args, load_options(args.checkpoint), args.checkpoint)
    kernel = linear_layers(pipeline.unet)["time_embedding.linear_2"].kernel
    np.testing.assert_allclose(kernel[...], layer.kernel[...] + 0.75 * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("lora", "message"),
    [("no.safetensors:0.3", "there is no LoRA no.safetensors"), ("x:much", "'x:much': the strength")],
)
def test_bad_loras(folder, tmp_path, monkeypatch, lora, message):
    with pytest.raises(InputError, match=re.escape(message)):
        run(monkeypatch, *one_video(folder, tmp_path / "out.mp4", "--lora", lora))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "stem"),
    [("frames/%05d.png", "frames_pose"), ("v1.2.gif", "v1.2_pose"), ("take.1/%03d.png", "take.1_pose")],
)
def test_the_pose_lies_beside_what_appears(folder, tmp_path, monkeypatch, output, stem):
    assert run(monkeypatch, *one_video(folder, tmp_path / output, "--save-pose", "num_frames=2")) == 0
    appears = output.partition("/")[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([appears, f"{stem}.mp4", f"{stem}.npz"])
    assert open_video(tmp_path / appears).num_frames == open_video(tmp_path / f"{stem}.mp4").num_frames == 2


@pytest.mark.parametrize("name", ["out_pose.npz", "out_pose.mp4"])
def test_a_pose_that_cannot_be_written_is_told_before_the_work(folder, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"{name}.* is a folder"):
        run(monkeypatch, *one_video(folder, tmp_path / "out.mp4", "--save-pose"))
    assert "denoising" not in capsys.readouterr().err


def test_frames_of_the_file_are_those_of_the_pipeline(folder, tiny_pipeline, tmp_path, monkeypatch):
    """PNG keeps every level, so files and library can be compared exactly."""
    run(monkeypatch, *one_video(folder, tmp_path / "frames"))
    written = np.stack(list(open_video(tmp_path / "frames").frames()))
    inputs = {"image": folder / "person.png", "motion": folder / "dance.npz", "image_pose": folder / "person.npz"}
    out = tiny_pipeline(**inputs, progress=False, **FAST)
    np.testing.assert_array_equal(written, np.round(out.frames * 255).astype(np.uint8))


def test_side_by_side_shows_the_reference_and_the_skeleton(folder, tmp_path, monkeypatch):
    run(monkeypatch, *one_video(folder, tmp_path / "wide", "--side-by-side", "num_frames=2"))
    frame = next(iter(open_video(tmp_path / "wide").frames()))
    shown = 256  # so small a video is enlarged
    assert frame.shape[1] > 3 * shown
    left = frame[8 : 8 + shown, 8 : 8 + shown].reshape(SIDE, shown // SIDE, SIDE, shown // SIDE, 3).mean((1, 3))
    picture = np.asarray(
        Image.open(folder / "person.png").resize((SIDE, round(SIDE * 320 / 192)), Image.Resampling.BILINEAR)
    )
    top = round((picture.shape[0] - SIDE) / 2)
    assert np.abs(left - picture[top : top + SIDE]).mean() < 2


def test_options_of_the_checkpoint_come_first(folder, tiny_pipeline, tmp_path):
    """Then those of the file, then those of the command line; a resolution of one's own goes before its size."""
    networks = {name: nnx.state(getattr(tiny_pipeline, name)) for name in NETWORKS}
    brought = {"width": 96, "height": 128, "stroke_width": 6.0, "guidance_scale": 1.5, "num_inference_steps": 4}
    save_checkpoint(tmp_path / "model", tiny_pipeline.config, networks, sampling=brought, progress=False)
    (tmp_path / "mine.yaml").write_text("guidance_scale: 3\nnum_inference_steps: 5\n")
    options = load_options(tmp_path / "model", tmp_path / "mine.yaml", ["num_inference_steps=6"])
    found = (options.shape, options.stroke_width, options.guidance_scale, options.num_inference_steps)
    assert found == ((96, 128), 6.0, 3.0, 6)
    assert load_options(tmp_path / "model", overrides=["resolution=64"]).height is None
    assert load_options(folder / "checkpoint") == GenerateConfig()

    (tmp_path / "model" / "sampling.json").write_text('{"strokes": 3}')
    with pytest.raises(InputError, match="unknown key 'strokes'"):
        load_options(tmp_path / "model")


def jobs_file(folder: Path, path: Path) -> Path:
    base = {"image": str(folder / "person.png"), "image_pose": str(folder / "person.npz")}
    (path.parent / "cut.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    nobody = dict(np.load(folder / "dance.npz"))
    nobody |= {name: np.zeros_like(nobody[name]) for name in nobody if name.endswith("_score")}
    np.savez(path.parent / "nobody.npz", **nobody)
    lines = [
        base | {"motion": str(folder / "dance.npz"), "output": "one.mp4", "seed": 1},
        base | {"motion": str(folder / "missing.npz"), "output": "missing.mp4"},
        base | {"motion": str(folder / "dance.npz"), "output": "two.mp4", "seed": 2},
        base | {"motion": "cut.mp4", "output": "corrupt.mp4"},
        base | {"motion": "nobody.npz", "output": "nobody.mp4"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def test_jobs_are_batched_resumed_and_reported(folder, tmp_path, monkeypatch, capsys):
    jobs = jobs_file(folder, tmp_path / "jobs.jsonl")
    videos = tmp_path / "videos"
    arguments = [
        "--checkpoint",
        folder / "checkpoint",
        "--devices",
        1,
        "--jobs",
        jobs,
        "--output-dir",
        videos,
        *OPTIONS,
    ]
    assert run(monkeypatch, *arguments) == 1
    err = capsys.readouterr().err
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert [line.split(":")[1].strip() for line in failed] == ["missing.mp4", "corrupt.mp4", "nobody.mp4"]
    assert sorted(path.name for path in videos.glob("*.*")) == ["one.mp4", "two.mp4"]
    assert len(list((videos / "failures").iterdir())) == 3
    assert err.count("denoising: 100%") >= 1
    first, second = (np.stack(list(open_video(videos / name).frames())) for name in ("one.mp4", "two.mp4"))
    assert np.abs(first.astype(int) - second).mean() > 1  # their seeds differ

    before = {path.name: path.stat().st_mtime_ns for path in videos.glob("*.*")}
    assert run(monkeypatch, *arguments) == 1
    assert {path.name: path.stat().st_mtime_ns for path in videos.glob("*.*")} == before
    assert "denoising" not in capsys.readouterr().err


def test_jobs_of_numbered_pictures_are_resumed(folder, tmp_path, monkeypatch, capsys):
    inputs = {"image": folder / "person.png", "image_pose": folder / "person.npz", "motion": folder / "dance.npz"}
    line = {name: str(path) for name, path in inputs.items()} | {"output": "frames/%05d.png"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
    (tmp_path / "videos" / "frames").mkdir(parents=True)  # empty: nothing is done
    arguments = ["--jobs", tmp_path / "jobs.jsonl", "--output-dir", tmp_path / "videos", *OPTIONS, "num_frames=2"]
    for denoised in (True, False):
        assert run(monkeypatch, "--checkpoint", folder / "checkpoint", "--devices", 1, *arguments) == 0
        assert ("denoising" in capsys.readouterr().err) == denoised
        assert open_video(tmp_path / "videos" / "frames").num_frames == 2


@pytest.mark.slow
def test_processes_share_the_jobs(folder, tmp_path, monkeypatch):
    lines = [
        {
            "image": str(folder / "person.png"),
            "image_pose": str(folder / "person.npz"),
            "motion": str(folder / "dance.npz"),
        }
        | {"output": f"{i}.gif"}
        for i in range(3)
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(map(json.dumps, lines)))
    made = []
    for process in range(2):
        videos = tmp_path / f"videos{process}"
        arguments = ["--jobs", jobs, "--output-dir", videos, "--process-id", process, "--num-processes", 2]
        assert (
            run(
                monkeypatch, "--checkpoint", folder / "checkpoint", "--devices", 1, *arguments, *OPTIONS, "num_frames=2"
            )
            == 0
        )
        made.append(sorted(path.name for path in videos.iterdir()))
    assert made == [["0.gif", "2.gif"], ["1.gif"]]


def bad_inputs(folder: Path, tmp: Path) -> dict[str, tuple[list, str]]:
    """Arguments that replace good ones, and what the sentence must say."""
    (tmp / "empty.png").write_bytes(b"")
    (tmp / "text.mp4").write_text("not a video")
    (tmp / "zero.mp4").write_bytes(b"")
    (tmp / "file").write_text("")
    (tmp / "typo.yaml").write_text("num_inference_stepz: 3\n")
    (tmp / "broken.yaml").write_text("a: [1\n")
    motion = dict(np.load(folder / "dance.npz"))
    np.savez(tmp / "nan.npz", **(motion | {"body": motion["body"] * np.nan}))
    dark = {name: np.zeros_like(array) if name.endswith("_score") else array for name, array in motion.items()}
    np.savez(tmp / "dark.npz", **dark)
    np.savez(tmp / "none.npz", **{name: array[:0] if array.ndim > 1 else array for name, array in motion.items()})
    (tmp / "cut.npz").write_bytes((folder / "dance.npz").read_bytes()[:300])
    return {
        "empty image": (["--image", tmp / "empty.png"], "empty"),
        "missing image": (["--image", tmp / "no.png"], "no.png"),
        "text as video": (["--motion", tmp / "text.mp4"], "text.mp4"),
        "zero-length video": (["--motion", tmp / "zero.mp4"], "empty"),
        "missing motion": (["--motion", tmp / "no.mp4"], "no.mp4"),
        "NaN keypoints": (["--motion", tmp / "nan.npz"], "NaN"),
        "nobody in the motion": (["--motion", tmp / "dark.npz"], "nobody"),
        "no frames": (["--motion", tmp / "none.npz"], "no frames"),
        "truncated keypoints": (["--motion", tmp / "cut.npz"], "cut.npz"),
        "overlap": (["window_overlap=8"], "window_overlap"),
        "no steps": (["num_inference_steps=0"], "num_inference_steps"),
        "odd size": (["width=60"], "multiples of 8"),
        "odd resolution": (["width=null", "height=null", "resolution=100"], "resolution 100"),
        "option typo": (["sed=3"], "did you mean 'seed'"),
        "config typo": (["--config", tmp / "typo.yaml"], "did you mean 'num_inference_steps'"),
        "broken config": (["--config", tmp / "broken.yaml"], "not valid YAML"),
        "missing config": (["--config", tmp / "no.yaml"], "no.yaml"),
        "not an option": (["hello"], "key=value"),
        "missing checkpoint": (["--checkpoint", tmp / "no"], "convert"),
        "unwritable output": (["--output", tmp / "file" / "out.mp4"], "file"),
        "unknown format": (["--output", tmp / "out.avi"], ".avi"),
        "start behind the end": (["start=100"], "behind the end"),
        "too many devices": (["--devices", 1000], "1000 devices"),
    }


CASES = [
    "empty image", "missing image", "text as video", "zero-length video", "missing motion", "NaN keypoints",
    "nobody in the motion", "no frames", "truncated keypoints", "overlap", "no steps", "odd size", "odd resolution",
    "option typo", "config typo", "broken config", "missing config", "not an option", "missing checkpoint",
    "unwritable output", "unknown format", "start behind the end", "too many devices",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence(case, folder, tmp_path, monkeypatch):
    change, message = bad_inputs(folder, tmp_path)[case]
    with pytest.raises(InputError) as caught:
        run(monkeypatch, *one_video(folder, tmp_path / "out.mp4", *change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        (["--output-dir", "videos"], "--output-dir has no effect without --jobs"),
        (["--distributed"], "--distributed has no effect without --jobs"),
        (["--process-id", "0"], "--process-id has no effect without --jobs"),
        (["--image-pose", "person.npz"], "--image-pose has no effect without --image"),
        (["--jobs", "jobs.jsonl", "--output", "out.mp4"], "--output has no effect with --jobs"),
        (["--jobs", "a", "--distributed", "--num-processes", "2"], "--num-processes has no effect with --distributed"),
        (["--pose-only", "--jobs", "jobs.jsonl"], "--jobs has no effect with --pose-only"),
        (["--pose-only", "--quantize", "int8"], "--quantize has no effect with --pose-only"),
        (["--pose-only", "--dtype", "float32"], "--dtype has no effect with --pose-only"),
        (["--compile-only", "--devices", "2"], "--devices has no effect with --compile-only"),
    ],
)
def test_a_switch_without_effect_is_refused(monkeypatch, switches, message):
    with pytest.raises(InputError, match=message):
        run(monkeypatch, *switches)


def test_a_gif_too_fast_is_refused_before_the_work(folder, tmp_path, monkeypatch, capsys):
    motion = load_keypoints(folder / "dance.npz", fps=60)
    save_keypoints(motion, tmp_path / "fast.npz")
    with pytest.raises(InputError, match="GIF cannot show 60"):
        run(monkeypatch, *one_video(folder, tmp_path / "out.gif", "--motion", tmp_path / "fast.npz"))
    assert "denoising" not in capsys.readouterr().err


def test_what_a_killed_run_left_is_cleared_away(folder, tmp_path, monkeypatch):
    (tmp_path / ".out.gif.mimicmotion-unfinished").mkdir()
    (tmp_path / ".out.gif.mimicmotion-unfinished" / "video.draft").write_bytes(b"half a video")
    assert run(monkeypatch, *one_video(folder, tmp_path / "out.gif", "num_frames=2")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.gif"]


def test_a_heavy_crop_is_announced(folder, tmp_path, monkeypatch, capsys):
    run(
        monkeypatch,
        *one_video(folder, tmp_path / "out.gif", "--pose-only", "width=128", "height=64", "num_frames=2")[4:],
    )
    assert "only 30% of the picture fits into 128x64" in capsys.readouterr().err


def test_the_shell_sees_one_line_and_an_exit_status(tmp_path):
    command = [sys.executable, ROOT / "sample.py", "--checkpoint", tmp_path / "nothing", "num_inference_steps=0"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def one_frame_motion(folder, tmp_path, frame):
    """Arguments for a motion of a single frame, in which MediaPipe looks for a person."""
    with open_writer(tmp_path / "one.mp4", 30, frame.shape[1], frame.shape[0]) as writer:
        writer.write(frame)
    return one_video(folder, tmp_path / "out.mp4", "--motion", tmp_path / "one.mp4")


def test_one_frame_of_a_person_as_motion(folder, tmp_path, monkeypatch, golden):
    photo = golden.folder.parents[1] / "media" / "images" / "mimicmotion_demo1.jpg"
    frame = np.asarray(Image.open(photo).convert("RGB").resize((360, 640)))
    assert run(monkeypatch, *one_frame_motion(folder, tmp_path, frame)) == 0
    assert open_video(tmp_path / "out.mp4").num_frames == 1


def test_one_frame_of_an_empty_wall_as_motion(folder, tmp_path, monkeypatch):
    arguments = one_frame_motion(folder, tmp_path, np.full((96, 64, 3), 200, np.uint8))
    with pytest.raises(InputError, match="nobody"):
        run(monkeypatch, *arguments)


@pytest.mark.parametrize(
    ("motion", "output", "more", "lost"),
    [
        ("dance.mp4", "dance.mp4", [], "dance.mp4"),
        ("link.mp4", "dance.mp4", [], "link.mp4"),
        ("dance.mp4", "link.mp4", [], "dance.mp4"),
        ("k_pose.npz", "k.mp4", ["--save-pose"], "k_pose.npz"),
        ("frames", "frames/%05d.png", [], "frames"),
        ("frames/0.png", "frames", [], "frames/0.png"),
    ],
)
def test_an_input_is_never_overwritten(folder, tmp_path, monkeypatch, motion, output, more, lost):
    with open_writer(tmp_path / "dance.mp4", 30, 64, 64) as writer:
        writer.write(np.zeros((2, 64, 64, 3), np.uint8))
    (tmp_path / "link.mp4").symlink_to("dance.mp4")
    (tmp_path / "k_pose.npz").write_bytes((folder / "dance.npz").read_bytes())
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "frames" / "0.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(InputError, match=rf"would destroy the input .*{lost}; give another output"):
        run(monkeypatch, *one_video(folder, tmp_path / output, "--motion", tmp_path / motion, *more))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize("number", [0, -2])
def test_no_processes_are_refused(folder, tmp_path, monkeypatch, number):
    (tmp_path / "jobs.jsonl").write_text('{"image": "a.png", "motion": "b.mp4"}')
    arguments = ["--jobs", tmp_path / "jobs.jsonl", "--output-dir", tmp_path, f"--num-processes={number}"]
    with pytest.raises(InputError, match=f"not {number}"):
        run(monkeypatch, "--checkpoint", folder / "checkpoint", "--devices", 1, *arguments)


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_poses_alone_are_those_of_the_video(folder, tmp_path, monkeypatch, capsys, with_checkpoint):
    """Without a checkpoint the full model's sizes hold, whose sides are multiples of 64."""
    first = 2 if with_checkpoint else 4  # leaves --devices and --checkpoint out
    made = one_video(folder, tmp_path / "a.mp4", "--save-pose", "num_frames=2")
    alone = one_video(folder, tmp_path / "b.mp4", "--pose-only", "num_frames=2")[first:]
    assert run(monkeypatch, *alone) == 0
    err = capsys.readouterr().err
    assert "frames (0.2 s): a person in 100%" in err
    assert "denoising" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b_pose.mp4", "b_pose.npz"]
    if with_checkpoint:
        assert run(monkeypatch, *made) == 0
        assert (tmp_path / "a_pose.mp4").read_bytes() == (tmp_path / "b_pose.mp4").read_bytes()
    else:
        with pytest.raises(InputError, match="multiples of 64"):
            run(monkeypatch, *alone, "width=80", "height=80")


@pytest.mark.parametrize("switch", ["--image", "--motion", "--image-pose"])
def test_inputs_elsewhere_are_refused(folder, tmp_path, monkeypatch, switch):
    with pytest.raises(InputError, match=r"hf://datasets/me/x.png is not on this machine"):
        run(monkeypatch, *one_video(folder, tmp_path / "out.mp4", switch, "hf://datasets/me/x.png"))


def test_somebody_elses_files_stay(folder, tmp_path, monkeypatch):
    """A video or a folder of pictures that mimicmotion did not write needs --overwrite; its own results do not."""
    (tmp_path / "mine.mp4").write_bytes(b"a film of mine")
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "frames" / "0001.png")
    np.savez(tmp_path / "out_pose.npz", body=np.zeros(3))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for output, more in (("mine.mp4", []), ("frames", []), ("out.mp4", ["--save-pose"])):
        with pytest.raises(InputError, match="--overwrite"):
            run(monkeypatch, *one_video(folder, tmp_path / output, "num_frames=2", *more))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    for _ in range(2):
        assert run(monkeypatch, *one_video(folder, tmp_path / "own.mp4", "num_frames=2")) == 0
    assert run(monkeypatch, *one_video(folder, tmp_path / "mine.mp4", "num_frames=2", "--overwrite")) == 0
    assert open_video(tmp_path / "mine.mp4").num_frames == 2


def test_sound_begins_with_the_first_frame(folder, tmp_path, monkeypatch):
    """The frame nearest to `start` and the sound have one clock: here frame 3 at 0.3 s, not the 0.26 s asked for."""
    from mimicmotion_jax.inference.preparing import Preparer
    from mimicmotion_jax.inference.survey import Surveyor

    with open_writer(tmp_path / "dance.mp4", 10, 64, 64) as writer:
        writer.write(np.zeros((8, 64, 64, 3), np.uint8))
    monkeypatch.setattr(Surveyor, "_people_in_motion", lambda *args: (demo_motion(5, 10, 64, 64), ()))
    options = load_options(overrides=["start=0.26", "width=64", "height=64"])
    prepared = Preparer(16)(folder / "person.png", tmp_path / "dance.mp4", options, folder / "person.npz")
    assert prepared.sound_start == pytest.approx(0.3)


def test_a_second_run_on_one_output_is_refused_at_once(folder, tmp_path, monkeypatch, capsys):
    with exclusive(tmp_path / "out.mp4"), pytest.raises(InputError, match="written already"):
        run(monkeypatch, *one_video(folder, tmp_path / "out.mp4", "num_frames=2"))
    assert "Loading" not in capsys.readouterr().err
    assert run(monkeypatch, *one_video(folder, tmp_path / "out.mp4", "num_frames=2")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
