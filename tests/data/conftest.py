"""One small dataset with encodings, made by the real program from videos good and bad."""

from pathlib import Path

import pytest
from counted import SIZE, write_counted
from flax import nnx

from mimicmotion_jax.checkpoint import save_checkpoint
from mimicmotion_jax.config import load_config
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
def prepared(videos, checkpoint, tmp_path_factory) -> tuple[Path, Summary]:
    """The dataset (c.mp4 is in two parts of 30 frames) and what was said of it."""
    output = tmp_path_factory.mktemp("datasets") / "all"
    options = ["max_seconds=1.5", f"encode={checkpoint}", f"size=[{SIZE[0]},{SIZE[1]}]", "batch_size=16"]
    config = load_config(PrepareConfig, overrides=options)
    return output, prepare(VideoFolder(videos), output, config, progress=False)


@pytest.fixture(scope="session")
def dataset(prepared) -> str:
    return str(prepared[0])
