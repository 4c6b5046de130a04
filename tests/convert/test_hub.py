"""Fetching from a hub: a server on this machine that answers as the real one does, and one that is not there."""

import hashlib

import pytest
import torch
from hub_server import REPOSITORY, python, serve
from huggingface_hub import constants

from mimicmotion_jax.checkpoint import read_config, read_manifest
from mimicmotion_jax.cli import convert


def test_only_the_files_needed_are_fetched_and_the_cache_serves_without_network(made, tmp_path, monkeypatch):
    for name, variant in (("vae", "diffusion_pytorch_model"), ("image_encoder", "model")):
        assert (made.svd / name / f"{variant}.fp16.safetensors").exists()
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pth")
    files = {f"them/svd/{path.relative_to(made.svd)}": path for path in made.svd.rglob("*") if path.is_file()}
    files["them/svd/vae/diffusion_pytorch_model.safetensors"] = made.motion  # a full-precision file that nobody wants
    files |= {"them/motion/MimicMotion_1-1.pth": made.motion, "them/motion/MimicMotion_1.pth": tmp_path / "other.pth"}
    script = REPOSITORY / "convert_weights.py"
    arguments = ("--svd", "them/svd", "--mimicmotion", "them/motion", "--output")
    with serve(files) as (server, endpoint):
        # Conversion takes no accelerator: it works where jax would fail to find the one it is told to take.
        done = python(tmp_path / "cache", endpoint, script, *arguments, tmp_path / "out", JAX_PLATFORMS="cuda")
        assert done.returncode == 0, done.stderr
        assert sorted(server.fetched) == [
            "them/motion/MimicMotion_1-1.pth",
            "them/svd/image_encoder/config.json",
            "them/svd/image_encoder/model.fp16.safetensors",
            "them/svd/unet/config.json",
            "them/svd/vae/config.json",
            "them/svd/vae/diffusion_pytorch_model.fp16.safetensors",
        ]
    manifest = read_manifest(tmp_path / "out")
    assert [source["name"] for source in manifest["sources"]] == [
        "them/motion/MimicMotion_1-1.pth",
        "them/svd/vae/diffusion_pytorch_model.fp16.safetensors",
        "them/svd/image_encoder/model.fp16.safetensors",
    ]
    assert manifest["sources"][0]["sha256"] == hashlib.sha256(made.motion.read_bytes()).hexdigest()
    assert read_config(tmp_path / "out").window_size == 72

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)  # in this process, which starts no interpreter
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    convert.main([*arguments, str(tmp_path / "again")])  # the server is gone
    assert read_manifest(tmp_path / "again") == manifest


REPORT = """
import sys
from mimicmotion_jax.convert.sources import open_mimicmotion, open_svd, read_official_config
from mimicmotion_jax.runtime.errors import InputError
for command in sys.argv[1:]:
    try:
        if command.startswith("svd:"):
            read_official_config(open_svd(command.removeprefix("svd:")), "unet")
        else:
            open_mimicmotion(command)
    except InputError as error:
        print(error)
"""


# The library tries an unreachable server again for half a minute; told to stay offline, it does not.
@pytest.mark.parametrize("network", ["up", "offline", pytest.param("unreachable", marks=pytest.mark.slow)])
def test_every_failure_is_one_sentence_with_the_step_to_take(network, made, tmp_path):
    sources = ("svd:them/gated", "svd:them/absent", "them/motion/MimicMotion_2.pth", "them/motion")
    refused = ("svd:foo--bar/x", "foo..bar/x", "svd:-foo/x", "foo/x.git", "foo/" + "x" * 100)
    with serve({"them/motion/MimicMotion_1.pth": made.motion}) as (_, endpoint):
        endpoint = "http://127.0.0.1:9" if network == "unreachable" else endpoint
        done = python(tmp_path / "cache", endpoint, "-c", REPORT, *sources, *refused, offline=network == "offline")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(sources) + len(refused)
    for name, line in zip(refused, lines[len(sources) :], strict=True):
        assert line.startswith(name.removeprefix("svd:"))
        assert "an id that the hub allows" in line
    del lines[len(sources) :]
    if network == "up":
        assert lines[0].startswith("them/gated is gated: accept its licence at https://huggingface.co/them/gated, ")
        assert lines[1].startswith("there is no file or folder them/absent here and no such repository on the hub")
        assert lines[2:] == [
            "them/motion on the hub lacks MimicMotion_2.pth; check the name.",
            "them/motion on the hub lacks MimicMotion_1-1.pth; check the name.",
        ]
    else:
        assert all("the hub cannot be reached" in line and line.endswith("fetched elsewhere.") for line in lines)
