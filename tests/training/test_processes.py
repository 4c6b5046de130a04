"""The real model in processes: killed, a run ends with the same bits; two, joined by gloo, train as one does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from test_resume import weights

from mimicmotion_jax.config import to_dict
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.trainer import train

ROOT = Path(__file__).resolve().parents[2]


def write_config(config: TrainConfig, path: Path) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(config)))))
    return path


def start(config: Path) -> subprocess.Popen:
    """Run train.py on one device; bits can be compared only between runs of the same kind."""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "train.py", "--config", str(config)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed(make_config, tmp_path):
    """kill -9 while a checkpoint is being written or soon after; then to the end: same bits."""
    exported = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        config = write_config(make_config(folder, "save_every=1", "keep=9"), tmp_path / f"{name}.yaml")
        if name == "killed":
            process = start(config)
            while process.poll() is None and not list((folder / "checkpoints").glob("[0-9]")):
                time.sleep(0.01)
            process.kill()
            process.communicate()
            assert not (folder / "model").exists()
        process = start(config)
        messages = process.communicate()[1]
        assert process.returncode == 0, messages
        assert ("going on from step" in messages) == (name == "killed")
        assert "training on 1 x cpu (mesh data=1 fsdp=1 frames=1)\n" in messages
        exported.append(weights(folder / "model"))
    ours, theirs = exported
    assert ours.keys() == theirs.keys()
    assert not [key for key in ours if not np.array_equal(ours[key], theirs[key])]


def start_two(config: Path, port: int) -> list[subprocess.Popen]:
    """Run train.py on two processes of two devices each."""
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",  # the last one counts
    }
    command = [sys.executable, "train.py", "--config", str(config), "--coordinator", f"localhost:{port}"]
    return [
        subprocess.Popen(
            [*command, "--num-processes", "2", "--process-id", str(i)],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def read_losses(folder: Path) -> dict[int, float]:
    return {
        (line := json.loads(text))["step"]: line["loss"] for text in (folder / "metrics.jsonl").read_text().splitlines()
    }


@pytest.mark.slow
def test_two_processes_equal_one(make_config, tmp_path, free_port):
    one = make_config(tmp_path / "one", "mesh.fsdp=4", "save_every=1")
    assert train(Diffusion(one, progress=False, devices=jax.devices()[:4])) is None

    two = make_config(tmp_path / "two", "mesh.fsdp=4", "save_every=1")
    config = write_config(two, tmp_path / "config.yaml")

    processes = start_two(config, free_port())
    while all(p.poll() is None for p in processes) and not (tmp_path / "two" / "checkpoints" / "2").exists():
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, errors
    assert not (tmp_path / "two" / "model").exists()

    processes = start_two(config, free_port())
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "going on from step" in errors[0]
    expected, found = read_losses(tmp_path / "one"), read_losses(tmp_path / "two")
    assert expected.keys() == found.keys() == set(range(1, 6))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
    assert (tmp_path / "two" / "model" / "manifest.json").exists()
