"""A dozen kills and full disks of `benchmarks/faults.py`, which tries a hundred, and some damaged media files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
POINTS, MEDIA = 12, 16
# The ordinary suite has kills of generation (`inference/test_progress`), of training (`training/test_trainer`), of
# preparation (`data/test_prepare`) and of writing files (`runtime/test_atomic_files`), and damaged media (`video`).
pytestmark = pytest.mark.slow
WITHOUT_NETWORKS = ("prepare", "pose", "score")
WITH_NETWORKS = ("sample", "jobs", "train", "evaluate", "convert", "export")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(WITHOUT_NETWORKS, id="without networks"),
        pytest.param(WITH_NETWORKS, id="with networks"),
    ],
)
def commands(request) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def results(commands, tmp_path_factory) -> dict:
    """Results of the script; all its points are tried in children of one process."""
    output = tmp_path_factory.mktemp("faults") / "faults.json"
    counts = ["--points", POINTS, "--media", MEDIA]
    command = [sys.executable, "benchmarks/faults.py", *counts, "--output", output, "--commands", *commands]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert output.exists(), run.stdout + run.stderr
    return json.loads(output.read_text())


@pytest.mark.parametrize("number", range(POINTS))
def test_a_fault_costs_nothing_that_was_finished(results, number):
    """The same command then completes, to the same bits; no stray file is left, and no traceback was printed."""
    assert results["results"][number]["problems"] == []


def test_the_points_cover_every_command_and_fault(results, commands):
    assert set(results["by_fault"]) == {"SIGKILL", "SIGTERM", "SIGINT", "ENOSPC"}
    assert set(results["by_command"]) == set(commands)


def test_damaged_media_files_end_in_a_sentence(results):
    media = results["media"]
    assert media["problems"] == []
    assert media["files"] == sum(media["outcomes"].values()) > MEDIA
    assert min(media["outcomes"].values()) > 2
