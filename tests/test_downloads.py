"""Downloads from the hub: DWPose's files, and failures."""

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


REPORT = """
import sys
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hub import fetch
for repository in sys.argv[1:]:
    try:
        print(*fetch(repository, "yolox_l.onnx", "dw-ll_ucoco_384.onnx"))
    except InputError as error:
        print(error)
"""


def test_broken_downloads_and_missing_files_are_one_sentence(files, tmp_path):
    person, pose = files.values()
    hub = {f"{name}/x/yolox_l.onnx": person for name in ("cut", "elsewhere", "lacking")}
    hub |= {f"{name}/x/dw-ll_ucoco_384.onnx": pose for name in ("cut", "elsewhere")}
    trouble = {"cut": ["cut/x/dw-ll_ucoco_384.onnx"], "stored_elsewhere": ["elsewhere/x/dw-ll_ucoco_384.onnx"]}
    repositories = ("cut/x", "elsewhere/x", "lacking/x", "foo--bar/x")
    with serve(hub, **trouble) as (_, endpoint):
        done = python(tmp_path / "cache", endpoint, "-c", REPORT, *repositories)
        offline = python(tmp_path / "empty", endpoint, "-c", REPORT, "cut/x", offline=True)
    assert done.returncode == 0, done.stderr
    cut, elsewhere, lacking, refused = done.stdout.splitlines()
    assert cut.startswith("fetching dw-ll_ucoco_384.onnx of cut/x from the hub failed (")
    assert elsewhere.startswith("fetching dw-ll_ucoco_384.onnx of elsewhere/x from the hub failed (")
    assert lacking == "lacking/x on the hub lacks dw-ll_ucoco_384.onnx; check the name."
    assert refused.startswith("foo--bar/x is neither a file or folder here nor an id")
    assert "the hub cannot be reached to fetch yolox_l.onnx" in offline.stdout, offline.stderr
