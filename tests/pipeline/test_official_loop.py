"""The pipeline against the official generation loop."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from official_loop import LANDSCAPE, compare

TESTS = Path(__file__).resolve().parents[1]


def test_same_latents_and_frames():
    """Guided, windows, landscape; one resolution (`models/test_unet.py` has several) and decoding chunks of one length
    (`test_official_chunks_do_not_overlap` has a shorter one)."""
    options = LANDSCAPE.options | {"decode_chunk_size": 7}
    error, psnr = compare(dataclasses.replace(LANDSCAPE, channels=(96,), heads=(3,), options=options))
    assert error < 5e-5
    assert psnr > 70


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        pytest.param("landscape", id="guided, windows, landscape"),
        pytest.param("portrait", id="one window, portrait"),
    ],
)
def test_the_same_at_xlas_default_optimisation(case):
    """In a process of its own: the suite's optimisation is lower."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, TESTS / "pipeline" / "official_loop.py", case]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    error, psnr = json.loads(run.stdout)
    assert error < 5e-5
    assert psnr > 70
