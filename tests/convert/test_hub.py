"""Fetching from a hub: a server on this machine that answers as the real one does, and one that is not there."""

import hashlib

import jax
import pytest
import torch
from hub_server import REPOSITORY, hub_of_this_process, python, serve

from mimicmotion_jax.checkpoint import read_config, read_manifest
from mimicmotion_jax.cli import convert
from mimicmotion_jax.convert.sources import open_mimicmotion, open_svd, read_official_config
from mimicmotion_jax.runtime.errors import InputError

ARGUMENTS = ("--svd", "them/svd", "--mimicmotion", "them/motion", "--output")
NEEDED = [
    "them/motion/MimicMotion_1-1.pth",
    "them/svd/image_encoder/config.json",
    "them/svd/image_encoder/model.fp16.safetensors",
    "them/svd/unet/config.json",
    "them/svd/vae/config.json",
    "them/svd/vae/diffusion_pytorch_model.fp16.safetensors",
]


@pytest.fixture
def files(made, tmp_path):
    """Repositories that hold more than is needed."""
    for name, variant in (("vae", "diffusion_pytorch_model"), ("image_encoder", "model")):
        assert (made.svd / name / f"{variant}.fp16.safetensors").exists()
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pth")
    files = {f"them/svd/{path.relative_to(made.svd)}": path for path in made.svd.rglob("*") if path.is_file()}
    files["them/svd/vae/diffusion_pytorch_model.safetensors"] = made.motion  # a full-precision file that nobody wants
    return files | {
        "them/motion/MimicMotion_1-1.pth": made.motion,
        "them/motion/MimicMotion_1.pth": tmp_path / "other.pth",
    }


def test_only_the_files_needed_are_fetched_and_the_cache_serves_without_network(files, made, tmp_path):
    with serve(files) as (server, endpoint), hub_of_this_process(tmp_path / "cache", endpoint):
        convert.main([*ARGUMENTS, str(tmp_path / "out")])
        assert sorted(server.fetched) == NEEDED
    manifest = read_manifest(tmp_path / "out")
    assert [source["name"] for source in manifest["sources"]] == [
        "them/motion/MimicMotion_1-1.pth",
        "them/svd/vae/diffusion_pytorch_model.fp16.safetensors",
        "them/svd/image_encoder/model.fp16.safetensors",
    ]
    assert manifest["sources"][0]["sha256"] == hashlib.sha256(made.motion.read_bytes()).hexdigest()
    assert read_config(tmp_path / "out").window_size == 72

    with hub_of_this_process(tmp_path / "cache", endpoint):
        convert.main([*ARGUMENTS, str(tmp_path / "again")])  # the server is gone
    assert read_manifest(tmp_path / "again") == manifest


def test_conversion_asks_for_no_accelerator(tmp_path, monkeypatch):
    """jax has started here already: only what it would be told is seen, and the script shows the rest."""
    monkeypatch.chdir(tmp_path)
    try:
        jax.config.update("jax_platforms", "cuda")
        with pytest.raises(InputError):
            convert.main(["--to-torch", "nowhere", "--output", "out"])
        assert jax.config.jax_platforms == "cpu"
    finally:
        jax.config.update("jax_platforms", "cpu")


@pytest.mark.slow  # the two tests before have the parts of it
def test_the_script_fetches_and_takes_no_accelerator(files, tmp_path):
    """It works where jax would fail to find the accelerator it is told to take."""
    script = REPOSITORY / "convert_weights.py"
    with serve(files) as (server, endpoint):
        done = python(tmp_path / "cache", endpoint, script, *ARGUMENTS, tmp_path / "out", JAX_PLATFORMS="cuda")
        assert done.returncode == 0, done.stderr
        assert sorted(server.fetched) == NEEDED


def fetch(source: str) -> None:
    if source.startswith("svd:"):
        read_official_config(open_svd(source.removeprefix("svd:")), "unet")
    else:
        open_mimicmotion(source)


def failure(source: str) -> str:
    with pytest.raises(InputError) as caught:
        fetch(source)
    return str(caught.value)


# The library tries an unreachable server again for half a minute; told to stay offline, it does not.
@pytest.mark.parametrize("network", ["up", "offline", pytest.param("unreachable", marks=pytest.mark.slow)])
def test_every_failure_is_one_sentence_with_the_step_to_take(network, made, tmp_path):
    sources = ("svd:them/gated", "svd:them/absent", "them/motion/MimicMotion_2.pth", "them/motion")
    refused = ("svd:foo--bar/x", "foo..bar/x", "svd:-foo/x", "foo/x.git", "foo/" + "x" * 100)
    with serve({"them/motion/MimicMotion_1.pth": made.motion}) as (_, endpoint):
        endpoint = "http://127.0.0.1:9" if network == "unreachable" else endpoint
        with hub_of_this_process(tmp_path / "cache", endpoint, offline=network == "offline"):
            lines = [failure(source) for source in sources]
            refusals = {name: failure(name) for name in refused}
    assert not any("\n" in line for line in (*lines, *refusals.values()))
    for name, line in refusals.items():
        assert line.startswith(name.removeprefix("svd:"))
        assert "an id that the hub allows" in line
    if network == "up":
        assert lines[0].startswith("them/gated is gated: accept its licence at https://huggingface.co/them/gated, ")
        assert lines[1].startswith("there is no file or folder them/absent here and no such repository on the hub")
        assert lines[2:] == [
            "them/motion on the hub lacks MimicMotion_2.pth; check the name.",
            "them/motion on the hub lacks MimicMotion_1-1.pth; check the name.",
        ]
    else:
        assert all("the hub cannot be reached" in line and line.endswith("fetched elsewhere.") for line in lines)
