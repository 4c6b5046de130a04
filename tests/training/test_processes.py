"""Two processes, joined by gloo, train the real model as one does; a SIGTERM to one of them stops and saves both."""

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

from mimicmotion_jax.config import to_dict
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.trainer import train

ROOT = Path(__file__).resolve().parents[2]


def start(config: Path, port: int) -> list[subprocess.Popen]:
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
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(json.loads(json.dumps(to_dict(two)))))

    processes = start(config, free_port())
    while all(p.poll() is None for p in processes) and not (tmp_path / "two" / "checkpoints" / "2").exists():
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, errors
    assert not (tmp_path / "two" / "model").exists()

    processes = start(config, free_port())
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "going on from step" in errors[0]
    expected, found = read_losses(tmp_path / "one"), read_losses(tmp_path / "two")
    assert expected.keys() == found.keys() == set(range(1, 6))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
    assert (tmp_path / "two" / "model" / "manifest.json").exists()
