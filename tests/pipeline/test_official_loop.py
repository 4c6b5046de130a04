"""The pipeline against the official generation loop, at XLA's default optimisation (the suite's own is lower)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("landscape", id="guided, windows, landscape"),
        pytest.param("portrait", id="one window, portrait", marks=pytest.mark.slow),
    ],
)
def test_same_latents_and_frames(case):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, TESTS / "pipeline" / "official_loop.py", case]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    error, psnr = json.loads(run.stdout)
    assert error < 5e-5
    assert psnr > 70
