"""Resuming a killed generation: from the last step or chunk, to the same bits, and only if nothing has changed."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from tiny import FEW, SIDE

import mimicmotion_jax.pipeline
from mimicmotion_jax import InputError
from mimicmotion_jax.inference import stages
from mimicmotion_jax.inference.decoding import decode_in_chunks
from mimicmotion_jax.inference.job import Job
from mimicmotion_jax.inference.jobs import run_jobs
from mimicmotion_jax.inference.progress import Progress, progress_folder
from mimicmotion_jax.video.encode import open_writer

STEPS = 4
OPTIONS = {
    **{"motion_kind": "skeletons", "progress": False, "save_seconds": 0, "seed": 3},
    **FEW | {"num_inference_steps": STEPS},
}
GENERATOR = np.random.default_rng(0)
IMAGE = GENERATOR.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
POSES = GENERATOR.integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
CHUNKS = 4  # of 2 frames that share one, in a video of 5


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture
def counted(monkeypatch):
    """Numbers of calls of the denoising loop and of the decoder."""
    counts = {"run_denoising": 0, "decode_chunks": 0}

    def count(name):
        stage = getattr(stages, name)

        def call(*args, **options):
            counts[name] += 1
            return stage(*args, **options)

        monkeypatch.setattr(stages, name, call)

    for name in counts:
        count(name)
    return counts


@pytest.fixture
def kill_after(monkeypatch):
    """A function that makes the process die once the latents after a step are saved; None lets it live again."""
    save = Progress.save

    def die(step):
        def dying(self, number, *args):
            save(self, number, *args)
            if number == step:
                raise Killed

        monkeypatch.setattr(Progress, "save", dying)

    return die


def kill_in_decoding(pipeline, folder: Path, taken: int, **changed) -> None:
    """Take some frames of a stream and leave it."""
    stream = pipeline.stream(IMAGE, POSES, resume_dir=folder, **OPTIONS | changed)
    assert len(list(itertools.islice(stream, taken))) == taken
    stream._source.close()


@pytest.fixture(scope="module")
def whole(tiny_pipeline) -> np.ndarray:
    """Frames of a run that nothing disturbed and that saved nothing."""
    return tiny_pipeline(IMAGE, POSES, **OPTIONS).frames


@pytest.mark.parametrize("step", [1, 3, STEPS])
def test_a_call_killed_while_denoising_goes_on_after_its_last_step(
    tiny_pipeline, whole, kill_after, counted, tmp_path, caplog, step
):
    caplog.set_level("INFO", logger="mimicmotion_jax")
    kill_after(step)
    with pytest.raises(Killed):
        tiny_pipeline(IMAGE, POSES, resume_dir=tmp_path, **OPTIONS)
    assert counted["run_denoising"] == step
    kill_after(None)
    np.testing.assert_array_equal(tiny_pipeline(IMAGE, POSES, resume_dir=tmp_path, **OPTIONS).frames, whole)
    assert counted["run_denoising"] == STEPS
    assert f"going on from step {step} of {STEPS}" in caplog.text
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("chunks", [1, 2, CHUNKS])
def test_a_stream_killed_while_decoding_goes_on_after_its_last_chunk(tiny_pipeline, whole, counted, tmp_path, chunks):
    taken = min(chunks, len(whole))  # the first chunk finishes a frame that only stands for the reference
    kill_in_decoding(tiny_pipeline, tmp_path / "progress", taken)
    counted.update(dict.fromkeys(counted, 0))
    video = tiny_pipeline.stream(IMAGE, POSES, resume_dir=tmp_path / "progress", **OPTIONS)
    video.save(tmp_path / "video.mp4")
    assert counted["run_denoising"] == 0
    assert counted["decode_chunks"] <= CHUNKS - chunks + 1  # one for the frame that it shares
    tiny_pipeline.stream(IMAGE, POSES, **OPTIONS).save(tmp_path / "whole.mp4")
    assert (tmp_path / "video.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["video.mp4", "whole.mp4"]


@pytest.mark.parametrize("changed", ["seed", "guidance_scale", "image", "motion", "weights", "software", "latents"])
def test_progress_of_another_video_is_not_used(
    tiny_pipeline, kill_after, counted, tmp_path, caplog, monkeypatch, changed
):
    kill_after(2)
    with pytest.raises(Killed):
        tiny_pipeline(IMAGE, POSES, resume_dir=tmp_path, **OPTIONS)
    image, poses, options = IMAGE.copy(), POSES.copy(), dict(OPTIONS)
    match changed:
        case "seed" | "guidance_scale":
            options[changed] = 4
        case "image":
            image[5, 5, 1] ^= 1
        case "motion":
            poses[3, 5, 5, 1] ^= 1
        case "weights":
            monkeypatch.setattr(tiny_pipeline, "_weights_sha256", "f" * 64)
        case "software":
            monkeypatch.setattr(mimicmotion_jax.pipeline, "__version__", "0.0.0")
        case "latents":
            options["latents"] = np.zeros((5, SIDE // 8, SIDE // 8, 4), np.float32)
    kill_after(None)
    counted.update(dict.fromkeys(counted, 0))
    tiny_pipeline(image, poses, resume_dir=tmp_path, **options)
    assert counted["run_denoising"] == STEPS
    (line,) = [record.getMessage() for record in caplog.records if "progress" in record.getMessage()]
    assert f"is of another {changed}: starting again" in line
    assert not list(tmp_path.rglob("*"))


def test_weights_are_told_apart_by_every_number(tiny_pipeline, monkeypatch):
    monkeypatch.setattr(tiny_pipeline, "_weights_sha256", None)
    before = tiny_pipeline._identity()
    kernel = tiny_pipeline.unet.conv_in.kernel
    values = kernel[...]
    kernel.set_value(values.at[0, 0, 0, 0].add(1e-3))
    monkeypatch.setattr(tiny_pipeline, "_weights_sha256", None)
    try:
        assert tiny_pipeline._identity() != before
    finally:
        kernel.set_value(values)


def test_damaged_progress_is_never_used(tiny_pipeline, whole, kill_after, tmp_path, caplog):
    """Flipped bytes and cuts all over both kinds of files: what is loaded equals what was saved, or nothing is."""
    kill_in_decoding(tiny_pipeline, tmp_path, 3)
    (item,) = tiny_pipeline._prepare_all(IMAGE, POSES, None, **OPTIONS)

    def load():
        progress = tiny_pipeline.open_progress([item], [tmp_path], 0)
        saved = progress.load(STEPS)
        return None if saved is None else saved.latents, progress.load_frames(1)

    correct = load()
    assert all(part is not None for part in correct)
    for kind, path in enumerate((next(tmp_path.glob("*latents*")), next(tmp_path.glob("*frames-00001*")))):
        content = path.read_bytes()
        places = np.random.default_rng(0).integers(0, len(content), 40)
        found = 0
        for place in (*places, *range(0, len(content), len(content) // 10)):
            damaged = bytearray(content)
            damaged[place] ^= 255
            path.write_bytes(damaged if place in places else content[:place])
            loaded = load()[kind]
            found += loaded is None
            if loaded is not None:
                np.testing.assert_array_equal(loaded, correct[kind])
        assert found > 25
        path.write_bytes(content)
    assert "is damaged" in caplog.text


def test_a_short_video_saves_nothing_and_a_place_that_cannot_be_written_ends_no_run(
    tiny_pipeline, whole, monkeypatch, tmp_path, caplog
):
    made = []
    monkeypatch.setattr("mimicmotion_jax.inference.progress.write_file", lambda path, content: made.append(path))
    tiny_pipeline(IMAGE, POSES, resume_dir=tmp_path / "new", **OPTIONS | {"save_seconds": 60})
    assert not made
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_bytes(b"")
    frames = tiny_pipeline(IMAGE, POSES, resume_dir=tmp_path / "file" / "folder", **OPTIONS).frames
    np.testing.assert_array_equal(frames, whole)
    assert caplog.text.count("the progress is not saved any more") == 1


def test_a_callback_and_resuming_exclude_each_other(tiny_pipeline, tmp_path):
    with pytest.raises(InputError, match="callback_on_step_end cannot be resumed"):
        tiny_pipeline(IMAGE, POSES, resume_dir=tmp_path, callback_on_step_end=print, **OPTIONS)


def test_latents_that_are_no_numbers_end_the_call_at_their_step(tiny_pipeline):
    seen = []

    def spoil(pipeline, step, timestep, values):
        seen.append(step)
        return {"latents": values["latents"] * (np.nan if step == 1 else 1)}

    with pytest.raises(InputError, match=rf"^the result is not a number after step 2 of {STEPS}: the weights"):
        tiny_pipeline(IMAGE, POSES, callback_on_step_end=spoil, **OPTIONS)
    assert seen == [0, 1]


@pytest.mark.parametrize(("size", "overlap", "devices"), [(4, 0, 1), (4, 1, 1), (5, 3, 2), (6, 5, 4)])
def test_decoding_from_a_later_chunk_gives_the_same_bits(size, overlap, devices):
    latents = np.random.default_rng(1).normal(size=(2, 23, 1, 1, 3)).astype(np.float32)
    decoded = []

    def decode(chunks):
        decoded.append(len(chunks))
        return np.sin(chunks * np.arange(1, chunks.shape[1] + 1)[:, None, None, None]).astype(np.float32)

    whole = list(decode_in_chunks(decode, latents, size, overlap, devices))
    for first in range(len(whole) + 2):
        decoded.clear()
        later = list(decode_in_chunks(decode, latents, size, overlap, devices, first))
        assert len(later) == max(len(whole) - first, 0)
        for ours, expected in zip(later, whole[first:], strict=True):
            np.testing.assert_array_equal(ours, expected)
    assert not decoded


def test_eight_bits_survive_the_way_through_float32():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(np.round(pixels.astype(np.float32) / 255 * 255).astype(np.uint8), pixels)


def test_what_a_killed_process_left_beside_a_finished_video_goes(tmp_path):
    output = tmp_path / "a.mp4"
    with open_writer(output, 10, 32, 32, progress=False) as writer:
        writer.write(np.zeros((2, 32, 32, 3), np.uint8))
    unfinished = tmp_path / ".a.mp4.mimicmotion-unfinished"
    unfinished.mkdir()
    (unfinished / "video.mp4").write_bytes(b"half")
    (tmp_path / "..a.mp4.mimicmotion-unfinished.lock").write_bytes(b"")
    progress_folder(output).mkdir()
    (progress_folder(output) / "mimicmotion-progress-latents.npz").write_bytes(b"")
    jobs = [Job(tmp_path / "a.png", tmp_path / "a.npz", output)]
    assert not run_jobs(jobs, lambda job: None, lambda batch: None, 1, tmp_path / "failures")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
