"""A small dataset with encodings, made by the real program from good and broken videos."""

from pathlib import Path

import pytest
from counted import SIZE, write_counted
from flax import nnx

from mimicmotion_jax.checkpoint import save_checkpoint
from mimicmotion_jax.data.prepare import PrepareConfig, Summary, prepare
from mimicmotion_jax.data.sources import VideoFolder

VIDEOS = {"a.mp4": (20, 50), "below/b.mp4": (40, 120), "c.mp4": (60, 190)}  # frames, blue


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, (num_frames, blue) in VIDEOS.items():
        write_counted(folder / name, num_frames, blue)
    write_counted(folder / "short.mp4", 5)
    write_counted(folder / "other.mp4", 20, blue=100, keypoints=19)
    write_counted(folder / "nobody.mp4", 20, blue=120, score=0)
    (folder / "text.mp4").write_text("This is no video.")
    (folder / "twin.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "twin.npz").write_bytes((folder / "a.npz").read_bytes())
    return folder


@pytest.fixture(scope="session")
def checkpoint(tiny_pipeline, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    networks = ("vae", "image_encoder")
    states = {name: nnx.state(getattr(tiny_pipeline, name)) for name in networks}
    save_checkpoint(directory, tiny_pipeline.config, states, progress=False)
    return directory


@pytest.fixture(scope="session")
def prepare_options(checkpoint) -> PrepareConfig:
    return PrepareConfig(max_seconds=1.5, encode=str(checkpoint), size=SIZE, batch_size=16)


@pytest.fixture(scope="session")
def prepared(videos, prepare_options, tmp_path_factory) -> tuple[Path, Summary]:
    """The dataset, in which c.mp4 is in two parts of 30 frames, and its summary."""
    output = tmp_path_factory.mktemp("datasets") / "all"
    return output, prepare(VideoFolder(videos), output, prepare_options, progress=False)


@pytest.fixture(scope="session")
def dataset(prepared) -> str:
    return str(prepared[0])
