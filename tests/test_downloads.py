"""A download that breaks off, and DWPose's files as one of the things that are downloaded."""

from pathlib import Path

import pytest
from hub_server import python, serve

FETCH = """
import sys
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.pose.dwpose import download_models
try:
    print(*download_models())
except InputError as error:
    print(error)
"""
PERSON, POSE = "yzd-v/DWPose/yolox_l.onnx", "yzd-v/DWPose/dw-ll_ucoco_384.onnx"


@pytest.fixture
def files(tmp_path):
    paths = {}
    for name in (PERSON, POSE):
        paths[name] = tmp_path / name.rpartition("/")[2]
        paths[name].write_bytes(name.encode() * 1000)
    return paths


def test_dwpose_files_are_fetched(files, tmp_path):
    with serve(files) as (server, endpoint):
        done = python(tmp_path / "cache", endpoint, "-c", FETCH)
        again = python(tmp_path / "cache", endpoint, "-c", FETCH, offline=True)
    assert done.returncode == 0, done.stderr
    assert server.fetched == [PERSON, POSE]
    assert [Path(path).read_bytes() for path in done.stdout.split()] == [path.read_bytes() for path in files.values()]
    assert again.stdout == done.stdout


@pytest.mark.parametrize("trouble", ["cut", "stored_elsewhere"])
def test_a_broken_download_is_one_sentence(trouble, files, tmp_path):
    with serve(files, **{trouble: [POSE]}) as (_, endpoint):
        done = python(tmp_path / "cache", endpoint, "-c", FETCH)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fetching dw-ll_ucoco_384.onnx of yzd-v/DWPose from the hub failed (")
    assert done.stdout.count("\n") == 1


def test_what_the_hub_lacks_is_one_sentence(files, tmp_path):
    with serve({PERSON: files[PERSON]}) as (_, endpoint):
        done = python(tmp_path / "cache", endpoint, "-c", FETCH)
        assert done.stdout == "yzd-v/DWPose on the hub lacks dw-ll_ucoco_384.onnx; check the name.\n", done.stderr
        offline = python(tmp_path / "empty", endpoint, "-c", FETCH, offline=True)
        assert "the hub cannot be reached to fetch yolox_l.onnx" in offline.stdout, offline.stderr
