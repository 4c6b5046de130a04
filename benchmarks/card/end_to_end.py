"""`sample.py` and `train.py` as users run them, with full-size random weights: a first run, and one after it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from card.inputs import Inputs, fast_dtype, random_pipeline
from card.results import Results, Row
from card.sizes import Size, size_of

COMMAND = Path(__file__).with_name("command.py")
_FPS = 8


def sample(results: Results, part: str, size: str) -> None:
    """Generate one window's video twice, with an empty compilation cache and with a filled one."""
    _twice(results, part, lambda folder: _sample_arguments(folder, _size(size)))


def train(results: Results, part: str, size: str) -> None:
    """Train some steps twice, with an empty compilation cache and with a filled one."""
    _twice(results, part, lambda folder: _train_arguments(folder, _size(size)))


def _size(name: str) -> Size:
    return size_of(name) if name != "tiny" else size_of(name, height=64, width=64)  # the least that users may ask for


def _twice(results: Results, part: str, prepare: Callable[[Path], list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = prepare(folder)
        for run in ("cold", "warm"):
            results.row(part, run, lambda run=run: _run([*arguments[:1], *_output(arguments, folder, run)], folder))


def _output(arguments: list[str], folder: Path, run: str) -> list[str]:
    if arguments[0] == "sample":
        return [*arguments[1:], "--output", str(folder / f"{run}.mp4")]
    return [*arguments[1:], f"output={folder / run}"]


def _run(command: list[str], folder: Path) -> Row:
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    start = time.perf_counter()
    run = subprocess.run([sys.executable, str(COMMAND), *command], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if run.returncode:
        raise RuntimeError(" | ".join(run.stderr.strip().splitlines()[-3:]))
    return {"seconds": round(seconds, 2), **json.loads(run.stdout.splitlines()[-1])}


def _sample_arguments(folder: Path, size: Size) -> list[str]:
    """Write a checkpoint, a picture and keypoints; return the command."""
    from PIL import Image

    from mimicmotion_jax.pose.files import save_keypoints
    from mimicmotion_jax.synthetic.dancer import demo_motion

    random_pipeline(size, fast_dtype()).save_pretrained(folder / "checkpoint")
    Image.fromarray(Inputs(size).image).save(folder / "person.png")
    motion = demo_motion(size.frames - 1, _FPS, size.width, size.height)
    save_keypoints(motion, folder / "motion.npz")
    save_keypoints(motion[:1], folder / "person.npz")
    files = {"checkpoint": "checkpoint", "image": "person.png", "image-pose": "person.npz", "motion": "motion.npz"}
    given = [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
    options = [f"num_inference_steps={size.steps}", f"height={size.height}", f"width={size.width}"]
    return ["sample", *given, "--dtype", fast_dtype(), *options, f"decode_chunk_size={size.decode_chunk}"]


def _train_arguments(folder: Path, size: Size) -> list[str]:
    """Write a dataset of two videos and the model's sizes; return the command."""
    import yaml

    from mimicmotion_jax.config import load_config, to_dict
    from mimicmotion_jax.data.prepare import PrepareConfig, prepare
    from mimicmotion_jax.data.sources import VideoFolder
    from mimicmotion_jax.pose.files import save_keypoints
    from mimicmotion_jax.pose.render import draw_poses
    from mimicmotion_jax.synthetic.dancer import demo_motion
    from mimicmotion_jax.video.encode import open_writer

    frames = size.frames + 4
    (folder / "videos").mkdir()
    for number, shade in enumerate((60, 160)):
        keypoints = demo_motion(frames, _FPS, size.width, size.height)
        drawn = draw_poses(keypoints, size.height, size.width)
        path = folder / "videos" / f"{number}.mp4"
        with open_writer(path, _FPS, size.width, size.height, progress=False) as writer:
            writer.write(np.where(drawn > 20, drawn, np.uint8(shade)))
        save_keypoints(keypoints, path.with_suffix(".npz"))
    wanted = [f"resolution={min(size.height, size.width)}", f"min_frames={size.frames}"]
    options = load_config(PrepareConfig, overrides=wanted)
    prepare(VideoFolder(folder / "videos"), folder / "clips", options, progress=False)
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump({"model": to_dict(size.model)}))
    data = {"dataset": folder / "clips", "num_frames": size.frames, "height": size.height, "width": size.width}
    given = {f"data.{name}": value for name, value in data.items()}
    given |= {"steps": 12 if size.full else 4, "batch_size": 1, "log_every": 6 if size.full else 2, "save_every": 1000}
    given |= {"sample_every": "null", "dtype": fast_dtype(), "mesh.fsdp": 1, "mesh.data": 1, "data.interval": "[1,1]"}
    return ["train", "--config", str(config), *[f"{name}={value}" for name, value in given.items()]]
