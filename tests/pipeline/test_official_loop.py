"""The pipeline against the official generation loop, at XLA's default optimisation (the suite's own is lower)."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_same_latents_and_frames():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, TESTS / "pipeline" / "official_loop.py"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) == 2
    for error, psnr in found.values():
        assert error < 5e-5
        assert psnr > 70
