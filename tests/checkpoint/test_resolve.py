"""Checkpoints found by name, and those of the hub: uploaded to and fetched from a server on this machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath
from hub_server import TOKEN, hub_of_this_process, python, serve

from mimicmotion_jax.checkpoint import PACKAGED, is_packaged, manifest_sha256, push, resolve
from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.runtime.errors import InputError

PUSH = """
import sys
from mimicmotion_jax import checkpoint
directory, token = sys.argv[1:]
print(checkpoint.push(directory, "me/dancer", private=True, token=token, commit_message="First"))
"""
LOAD = """
import hashlib
import sys
from mimicmotion_jax import checkpoint
for source in sys.argv[1:]:
    found = checkpoint.resolve(source)
    network = checkpoint.load_network(found, "vae", checkpoint.read_config(found))
    digest = hashlib.sha256()
    for path, array in checkpoint.flat_params(checkpoint.read.nnx.state(network)).items():
        digest.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
    print(digest.hexdigest())
"""


def test_names_on_this_machine_and_in_storage(stored, monkeypatch):
    monkeypatch.chdir(stored.parent)
    for source in (stored, str(stored), "saved", Path("saved"), epath.Path("saved")):
        assert resolve(source) == epath.Path(stored)
    assert resolve("nothing/here/at/all") == epath.Path(stored.parent / "nothing/here/at/all")
    for source in ("gs://bucket/run/model", Path("gs://bucket/run/model"), epath.Path("gs://bucket/run/model")):
        assert str(resolve(source)) == "gs://bucket/run/model"
    with pytest.raises(InputError, match="bucket"):
        resolve("ftp://bucket/run")


def test_models_of_the_package_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("small", "small-student"):
        assert resolve(name) == epath.Path(PACKAGED / name)
        assert is_packaged(resolve(name))
        # Training reads them by name as well.
        assert manifest_sha256(name) == sha256_file(PACKAGED / name / "manifest.json")
    for name in ("smaller", "./small/params", "."):
        assert resolve(name) == epath.Path(tmp_path / name)
    (tmp_path / "small").mkdir()
    assert resolve("small") == epath.Path(tmp_path / "small")
    assert not is_packaged(resolve("small"))
    with pytest.raises(InputError, match="small holds no checkpoint"):
        manifest_sha256("small")


@pytest.mark.slow
def test_uploaded_checkpoints_load_by_their_id_and_from_the_cache(stored, tmp_path):
    with serve({}, uploads=tmp_path / "uploads") as (server, endpoint):
        pushed = python(tmp_path / "writer", endpoint, "-c", PUSH, stored, TOKEN)
        assert pushed.stdout.startswith(f"{endpoint}/me/dancer/commit/"), pushed.stderr
        assert server.private == {"me/dancer"}
        assert server.commits[-1]["summary"] == "First"
        uploaded = {path.relative_to(tmp_path / "uploads/me/dancer") for path in server.files.values()}
        assert uploaded == {path.relative_to(stored) for path in stored.rglob("*") if path.is_file()} | {
            Path("README.md")
        }
        card = (tmp_path / "uploads/me/dancer/README.md").read_text()
        assert 'from_pretrained("me/dancer")' in card
        assert "24 frames" in card
        done = python(tmp_path / "reader", endpoint, "-c", LOAD, stored, "me/dancer", "me/dancer")
        assert done.returncode == 0, done.stderr
        local, fetched, again = done.stdout.split()
        assert local == fetched == again
        assert "me/dancer/README.md" not in server.fetched
        assert len(server.fetched) == len(set(server.fetched))
    offline = python(tmp_path / "reader", endpoint, "-c", LOAD, "me/dancer", offline=True)
    assert offline.stdout.split() == [local], offline.stderr


def test_the_card_of_the_folder_or_the_repository_stays(stored, tmp_path):
    (tmp_path / "card.md").write_text("mine")
    files = {"me/dancer/README.md": tmp_path / "card.md"}
    with (
        serve(files, uploads=tmp_path / "uploads") as (server, endpoint),
        hub_of_this_process(tmp_path / "cache", endpoint),
    ):
        push(stored, "me/dancer", token=TOKEN)
        assert len(server.commits) == 1
        assert server.files["me/dancer/README.md"].read_text() == "mine"


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_failures_are_one_sentence(stored, tmp_path):
    (tmp_path / "model.pth").write_bytes(hashlib.sha256().digest())
    files = {"them/motion/MimicMotion_1-1.pth": tmp_path / "model.pth"}
    cases = [
        (lambda: resolve("foo--bar/x"), "an id that the hub allows"),
        (lambda: resolve("them/absent"), "no file or folder them/absent here and no such repository"),
        (lambda: resolve("them/gated"), "them/gated is gated"),
        (lambda: resolve("them/motion"), "must be converted first"),
        (lambda: push(stored, "foo--bar/x"), "an id that the hub allows"),
        (lambda: push(stored, "me/dancer", token="hf_other"), "401"),
        (lambda: push(stored, "me/full", token=TOKEN), "403"),
        (lambda: push(tmp_path, "me/dancer"), "no checkpoint"),
    ]
    with serve(files, uploads=tmp_path / "uploads", full=["me/full"]) as (_, endpoint):
        with hub_of_this_process(tmp_path / "cache", endpoint):
            for call, words in cases:
                assert words in failure(call)
        with hub_of_this_process(tmp_path / "cache", endpoint, offline=True):
            assert "cannot be reached" in failure(lambda: resolve("them/motion"))


def test_checkpoints_in_storage_are_not_uploaded():
    with pytest.raises(InputError, match="not on this machine"):
        push("gs://bucket/model", "me/dancer")
