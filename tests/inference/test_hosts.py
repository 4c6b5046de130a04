"""Hosts that share a list of jobs do not need each other: one that is through early, or fails, ends no other one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

ROOT = Path(__file__).resolve().parents[2]
# By default jax ends all processes when one has waited 300 s for the others. Nobody wants to wait so long here.
IMPATIENT = """
import functools, jax, runpy
jax.distributed.initialize = functools.partial(jax.distributed.initialize, shutdown_timeout_seconds=1)
runpy.run_path("sample.py", run_name="__main__")
"""


@pytest.fixture
def arguments(tiny_pipeline, tmp_path) -> list[str]:
    """Two jobs, the first of which is done."""
    tiny_pipeline.save_pretrained(tmp_path / "checkpoint")
    picture, pose = demo_reference(64, 64)
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "person.npz")
    save_keypoints(demo_motion(2, 10, 64, 64), tmp_path / "dance.npz")
    line = {"image": "person.png", "image_pose": "person.npz", "motion": "dance.npz"}
    lines = [json.dumps(line | {"output": f"{number}.gif"}) for number in range(2)]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    with open_writer(tmp_path / "videos" / "0.gif", 10, 64, 64, progress=False) as writer:
        writer.write(picture)
    given = {"--checkpoint": "checkpoint", "--jobs": "jobs.jsonl", "--output-dir": "videos"}
    files = [part for switch, name in given.items() for part in (switch, str(tmp_path / name))]
    return [*files, "--distributed", "width=64", "height=64", "num_inference_steps=1"]


def start(arguments: list[str], number: int, port: int) -> subprocess.Popen:
    """sample.py as SLURM starts it on the host `number` of two."""
    slurm = {
        "JOB_ID": 1,
        "STEP_NODELIST": "localhost",
        "NTASKS": 2,
        "STEP_NUM_TASKS": 2,
        "PROCID": number,
        "LOCALID": 0,
    }
    environment = os.environ | {f"SLURM_{name}": str(value) for name, value in slurm.items()}
    environment |= {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",  # the last one counts
    }
    command = [sys.executable, "-c", IMPATIENT, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "status"),
    [
        pytest.param(["--devices", "1000"], 2, id="failed"),
        pytest.param([], 0, id="done"),
    ],
)
def test_a_host_that_is_through_waits_for_the_others(arguments, tmp_path, more, status):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start([*arguments, *more], 0, port), start(arguments, 1, port)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [status, 0], errors
    assert "waits until the other processes are through" in errors[0]
    assert open_video(tmp_path / "videos" / "1.gif").num_frames == 2
