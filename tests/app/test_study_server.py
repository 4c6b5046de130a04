"""The served study: its page and clips and nothing else, answers saved one by one."""

import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from mimicmotion_jax import InputError
from mimicmotion_jax.app.study_server import serve_study, study_app
from mimicmotion_jax.evaluation.study.build import build_study
from mimicmotion_jax.video.encode import open_writer


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for method in ("ours", "theirs"):
        with open_writer(folder / method / "dance.mp4", 20, 32, 32, progress=False) as writer:
            writer.write(np.zeros((3, 32, 32, 3), np.uint8))
    methods = {name: folder / name for name in ("ours", "theirs")}
    return folder / "study", build_study(methods, folder / "study", progress=False)


@pytest.fixture
def client(study):
    return TestClient(study_app(*study))


def answers_of(study, participant):
    (left, right), time = study.orders[0][0], "2026-01-02T03:04:05.678Z"
    choice = {"left": left, "right": right, "chosen": "left", "seconds": 0.5, "plays": 2}
    return {
        "study": study.study, "participant": participant, "order": 0, "choices": [choice], "started": time,
        "finished": time,
    }  # fmt: skip


def test_the_page_and_its_clips_are_served_and_nothing_else(client, study):
    folder, key = study
    assert client.get("/").text == (folder / "page" / "index.html").read_text()
    clip = next(iter(key.clips))
    content = (folder / "page" / "clips" / f"{clip}.mp4").read_bytes()
    assert client.get(f"/clips/{clip}.mp4").content == content
    part = client.get(f"/clips/{clip}.mp4", headers={"Range": "bytes=10-19"})  # as players ask
    assert (part.status_code, part.content) == (206, content[10:20])
    for path in ("/key.json", "/../key.json", "/%2e%2e/key.json", "/answers", "/clips/../../key.json"):
        assert client.get(path).status_code in (404, 405), path


def test_answers_are_saved_and_wrong_ones_refused(client, study):
    folder, key = study
    good = answers_of(key, "7")
    assert [client.post("/answers", json=good).text for _ in range(2)] == ["7.json", "7-2.json"]
    assert json.loads((folder / "answers" / "7.json").read_text())["choices"] == good["choices"]
    before = sorted((folder / "answers").iterdir())
    for wrong in ({**good, "participant": "../../evil"}, {**good, "study": "0"}, {**good, "choices": []}, [1]):
        refused = client.post("/answers", json=wrong)
        assert refused.status_code == 400
        assert "what was sent" in refused.text
    assert client.post("/answers", content=b"{" * (2**22 + 1)).status_code == 413
    assert sorted((folder / "answers").iterdir()) == before
    assert not [path for path in folder.parent.iterdir() if path.name not in ("ours", "theirs", "study")]


def test_what_cannot_be_served_is_one_sentence(study, tmp_path):
    import socket

    with pytest.raises(InputError, match="is not the folder of a study"):
        serve_study(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InputError, match=r"choose another with --host or"),
    ):
        serve_study(study[0], port=taken.getsockname()[1])
