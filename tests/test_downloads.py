"""Downloads from the hub: DWPose's files, and failures."""

import time

import pytest
from hub_server import hub_of_this_process, serve

from mimicmotion_jax.pose.dwpose import download_models
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hub import fetch

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
        with hub_of_this_process(tmp_path / "cache", endpoint):
            done = download_models()
        with hub_of_this_process(tmp_path / "cache", endpoint, offline=True):
            again = download_models()
    assert server.fetched == [PERSON, POSE]
    assert [path.read_bytes() for path in done] == [path.read_bytes() for path in files.values()]
    assert again == done


def failure(repository: str) -> str:
    with pytest.raises(InputError) as caught:
        fetch(repository, "yolox_l.onnx", "dw-ll_ucoco_384.onnx")
    return str(caught.value)


def test_broken_downloads_and_missing_files_are_one_sentence(files, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library waits between its attempts
    person, pose = files.values()
    hub = {f"{name}/x/yolox_l.onnx": person for name in ("cut", "elsewhere", "lacking")}
    hub |= {f"{name}/x/dw-ll_ucoco_384.onnx": pose for name in ("cut", "elsewhere")}
    trouble = {"cut": ["cut/x/dw-ll_ucoco_384.onnx"], "stored_elsewhere": ["elsewhere/x/dw-ll_ucoco_384.onnx"]}
    with serve(hub, **trouble) as (_, endpoint):
        with hub_of_this_process(tmp_path / "cache", endpoint):
            cut, elsewhere, lacking, refused = map(failure, ("cut/x", "elsewhere/x", "lacking/x", "foo--bar/x"))
        with hub_of_this_process(tmp_path / "empty", endpoint, offline=True):
            offline = failure("cut/x")
    assert cut.startswith("fetching dw-ll_ucoco_384.onnx of cut/x from the hub failed (")
    assert elsewhere.startswith("fetching dw-ll_ucoco_384.onnx of elsewhere/x from the hub failed (")
    assert lacking == "lacking/x on the hub lacks dw-ll_ucoco_384.onnx; check the name."
    assert refused.startswith("foo--bar/x is neither a file or folder here nor an id")
    assert "the hub cannot be reached to fetch yolox_l.onnx" in offline
    assert not any("\n" in sentence for sentence in (cut, elsewhere, lacking, refused, offline))
