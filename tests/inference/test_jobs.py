"""Running many jobs: a failure is that job's alone, whatever raised it."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image
from tiny import FEW, SIDE

from mimicmotion_jax import InputError
from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.job_list import read_jobs
from mimicmotion_jax.inference.jobs import run_jobs
from mimicmotion_jax.inference.options import GenerateConfig, PipelineOptions
from mimicmotion_jax.inference.output import check_outputs, write_videos
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

PICTURE, POSE = demo_reference(64, 64)


def prepare(job: Job) -> Prepared:
    """Read nothing; the name of the motion says how many frames it has, or which exception to raise."""
    name = job.motion.name
    if not name.isdecimal():
        raise {"MemoryError": MemoryError("no room for 1 TB"), "OSError": OSError(5, "Input/output error")}[name]
    poses = DrawnPoses(demo_motion(int(name), 10, 64, 64), 64, 64)
    return Prepared(PICTURE, poses, keypoints=None, fps=10, options=PipelineOptions(), output=job.output)


class Recorder:
    """Record batches and write empty files; fail for outputs called bad* and for batches that are too large."""

    def __init__(self, largest: int = 100):
        self.batches: list[list[str]] = []
        self.largest = largest

    def __call__(self, batch: list[Prepared]) -> None:
        self.batches.append([item.output.stem for item in batch])
        if len(batch) > self.largest:
            raise InputError("the device has no room for this batch; lower batch_size.")
        if any(item.output.stem.startswith("bad") for item in batch):
            raise RuntimeError("the network gave NaN\nin a second line")
        for item in batch:
            item.output.write_bytes(b"")


def job_list(folder: Path, *rows: tuple[str, str] | tuple[str, str, dict]) -> list[Job]:
    """Jobs of (name of the output, number of frames or exception, options)."""
    return [Job(folder, Path(motion), folder / f"{name}.mp4", options=dict(*more)) for name, motion, *more in rows]


def test_logs_of_failures_go_when_the_jobs_succeed(tmp_path):
    def run(motion):
        return run_jobs(job_list(tmp_path, ("a", "2"), ("x", motion)), prepare, Recorder(), 1, tmp_path / "failures")

    assert len(run("MemoryError")) == 1
    assert [path.name for path in (tmp_path / "failures").iterdir()] == ["0002-x.mp4.log"]
    assert not run("3")
    assert not (tmp_path / "failures").exists()


def test_every_exception_is_that_jobs_alone(tmp_path, caplog):
    jobs = job_list(tmp_path, ("a", "2"), ("x", "MemoryError"), ("b", "3"), ("y", "OSError"), ("bad", "2"), ("c", "3"))
    made = Recorder()
    failures = run_jobs(jobs, prepare, made, 2, tmp_path / "failures")
    assert made.batches == [["a", "bad"], ["a"], ["bad"], ["b", "c"]]
    assert {failure.job.output.stem: failure.reason for failure in failures} == {
        "x": "MemoryError: no room for 1 TB.",
        "y": "Input/output error.",
        "bad": "RuntimeError: the network gave NaN.",
    }
    for failure in failures:
        assert caplog.text.count(failure.reason) == 1
        log = failure.log.read_text()
        assert log.startswith("Traceback")
        assert log.count("in prepare" if failure.job.output.stem != "bad" else "in __call__") == 1
    assert [path.name for path in sorted((tmp_path / "failures").iterdir())] == [
        "0002-x.mp4.log",
        "0004-y.mp4.log",
        "0005-bad.mp4.log",
    ]
    assert "3 of 6 jobs failed" in caplog.text
    assert sorted(path.stem for path in tmp_path.glob("*.mp4")) == ["a", "b", "c"]


def test_a_batch_without_room_is_made_one_by_one(tmp_path, caplog):
    jobs = job_list(tmp_path, ("a", "2"), ("b", "2"), ("c", "2"))
    made = Recorder(largest=1)
    assert run_jobs(jobs, prepare, made, 3, tmp_path / "failures") == []
    assert made.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert caplog.text.count("no room for this batch") == 1
    assert not (tmp_path / "failures").exists()


def test_batches_have_one_shape_and_equal_options(tmp_path):
    """Their seeds may differ."""
    limb = {"align": "limb"}
    rows = [("a", "2", limb), ("b", "2"), ("c", "2", limb | {"seed": 7}), ("d", "3"), ("e", "2", {"align": "none"})]
    made = Recorder()
    assert run_jobs(job_list(tmp_path, *rows, ("f", "2")), prepare, made, 2, tmp_path) == []
    assert made.batches == [["a", "c"], ["b", "f"], ["d"], ["e"]]


def test_what_is_done_is_skipped_and_processes_share_the_rest(tmp_path):
    jobs = job_list(tmp_path, *((f"{number}", "2") for number in range(5)))
    with open_writer(jobs[2].output, 10, 64, 64) as writer:
        writer.write(PICTURE)
    made = [Recorder(), Recorder()]
    for process_id in range(2):
        run_jobs(jobs, prepare, made[process_id], 8, tmp_path, process_id, 2)
    assert [recorder.batches for recorder in made] == [[["0", "4"]], [["1", "3"]]]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["prepare", "generate"])
def test_an_interruption_ends_the_list(tmp_path, interrupt, where):
    def stop(_):
        raise interrupt

    jobs = job_list(tmp_path, ("a", "2"), ("b", "2"))
    made = Recorder()
    with pytest.raises(interrupt):
        run_jobs(
            jobs,
            stop if where == "prepare" else prepare,
            stop if where == "generate" else made,
            1,
            tmp_path / "failures",
        )
    assert made.batches == []
    assert not (tmp_path / "failures").exists()


def test_a_log_that_cannot_be_written_is_printed(tmp_path, caplog):
    (tmp_path / "failures").write_text("the user's own file")
    (failure,) = run_jobs(job_list(tmp_path, ("x", "MemoryError")), prepare, Recorder(), 1, tmp_path / "failures")
    assert failure.log is None
    assert "Traceback" in caplog.text
    assert (tmp_path / "failures").read_text() == "the user's own file"


@pytest.mark.usefixtures("bucket")
def test_logs_may_lie_in_a_bucket(tmp_path):
    jobs = job_list(tmp_path, ("x", "MemoryError"))
    (failure,) = run_jobs(jobs, prepare, Recorder(), 1, epath.Path("gs://bucket/failures"))
    assert str(failure.log) == "gs://bucket/failures/0001-x.mp4.log"
    assert "no room for 1 TB" in failure.log.read_text()


def write_inputs(folder: Path) -> dict[str, str]:
    """A reference picture, its pose and a motion; returns them as a line of a job list."""
    Image.fromarray(PICTURE).save(folder / "a.png")
    save_keypoints(POSE, folder / "a.npz")
    save_keypoints(demo_motion(2, 10, 64, 64), folder / "b.npz")
    return {"image": "a.png", "image_pose": "a.npz", "motion": "b.npz"}


def forge_keypoints(path: Path) -> None:
    """Write keypoints whose header announces 144 terabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1, 18, 2)})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("body.npy", header.getvalue())


def test_odd_files_fail_alone(tiny_pipeline, tmp_path):
    """Names that are too long, also for the temporary file alone; a header that no memory suffices for."""
    good = write_inputs(tmp_path)
    forge_keypoints(tmp_path / "forged.npz")
    names = ["n" * 300 + ".mp4", "n" * 245 + ".gif", "n" * 300 + "/a.mp4", "x/" + "n" * 300, "deep/" * 1000 + "a.mp4"]
    rows = [good | {"output": name} for name in names]
    rows += [good | {"motion": "forged.npz"}, good | {"motion": "m" * 300 + ".npz", "output": "long.mp4"}]
    rows += [good | {"output": "good.mp4"}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    jobs = read_jobs(tmp_path / "jobs.jsonl", tmp_path / "videos")

    def prepare(job):
        check_outputs(job.output, GenerateConfig())
        return tiny_pipeline.prepare(job.image, job.motion, image_pose=job.image_pose, width=SIDE, height=SIDE, **FEW)

    def generate(batch):
        write_videos(batch, [jobs[-1].output], tiny_pipeline.generate(batch), GenerateConfig())

    failures = run_jobs(jobs, prepare, generate, 1, tmp_path / "failures")
    assert [failure.job for failure in failures] == jobs[:-1]
    *outputs, forged, missing = [failure.reason for failure in failures]
    assert all("name is too long" in reason for reason in outputs)
    assert forged
    assert missing.startswith("there is no keypoint file")
    assert all(failure.log.is_file() for failure in failures)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["good.mp4"]
    assert open_video(tmp_path / "videos" / "good.mp4").num_frames == 2
