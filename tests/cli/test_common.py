"""Argument types and log messages that all subcommands share."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mimicmotion_jax.cli import evaluate, sample
from mimicmotion_jax.cli.common import path_or_url

MESSAGES = """
import logging, sys
from tqdm import tqdm
from mimicmotion_jax.cli import evaluate, sample
from mimicmotion_jax.cli.common import log_to_stderr
log_to_stderr(libraries=logging.CRITICAL)
import jax
jax.devices()
logging.getLogger("orbax").error("message of a library")
for step in tqdm(range(2), ascii=True, mininterval=0):
    logging.getLogger("mimicmotion_jax").info(f"step {step}")
"""


def test_messages_on_stderr():
    """A broken plugin stands for a GPU without CUDA: jax complains about both in the same place."""
    environment = os.environ | {"PJRT_NAMES_AND_LIBRARY_PATHS": "broken"}
    run = subprocess.run([sys.executable, "-c", MESSAGES], env=environment, capture_output=True, check=True)
    err = run.stderr.decode()
    assert "invalid value broken in env var PJRT_NAMES_AND_LIBRARY_PATHS" in err
    assert "message of a library" not in err
    # Where a bar was, it is cleared first; nothing follows on the line.
    for step in range(2):
        before, _, after = err.partition(f"step {step}")
        assert before.endswith(("\r", "\n"))
        assert after.startswith("\n")


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("url", ["gs://bucket/folder", "gs://bucket/folder/x.mp4"])
def test_urls_stay_urls(url):
    assert os.fspath(path_or_url(url)) == str(path_or_url(url)) == url
    assert str(path_or_url(url) / "y" / "z.mp4") == f"{url}/y/z.mp4"


def test_local_paths_are_pathlib_paths():
    assert path_or_url("a/b.mp4") == Path("a/b.mp4")
    assert isinstance(path_or_url("a/b.mp4"), Path)


@pytest.mark.parametrize(
    ("url", "message"),
    [("ftp://host/x", "ftp://host/x is on unknown storage"), ("gs://bucket/x", r"pip install .*\[gcs\]")],
)
def test_storage_that_cannot_be_used_is_one_line(url, message, capsys, monkeypatch):
    for package in ("gcsfs", "tensorflow"):  # as in an environment without them
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gcs", raising=False)
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=path_or_url)
    with pytest.raises(SystemExit):
        parser.parse_args(["--output", url])
    assert re.search(f"error: argument --output: .*{message}", capsys.readouterr().err)


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("command", "more"),
    [
        (sample, ["--output", "gs://bucket/x.mp4", "--output-dir", "gs://bucket/d", "--jobs", "gs://bucket/j.jsonl"]),
        (evaluate, ["--data", "d", "--protocol", "p", "--output", "o"]),
    ],
)
def test_checkpoints_and_outputs_may_be_urls(command, more):
    args = vars(command.parse_args(["--checkpoint", "gs://bucket/x", *more]))
    urls = [text for text in ["gs://bucket/x", *more] if "://" in text]
    assert {str(value) for value in args.values() if "gs:" in str(value)} == set(urls)
