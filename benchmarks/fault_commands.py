"""Commands whose faults `faults` tries, on the smallest inputs: what they read, what they write, how they end."""

import dataclasses
import hashlib
import importlib
import json
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.cli import convert, evaluate, prepare, sample, train
from mimicmotion_jax.convert import export_torch
from mimicmotion_jax.models.build import NETWORKS, abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.encode import open_writer

SIZE = 64
FRAMES = 7
_SMALL = (f"height={SIZE}", f"width={SIZE}")
_LONG = ("num_inference_steps=4", "decode_chunk_size=2", "save_seconds=0")  # saves after each step and chunk
# Serve reruns only, or have the time in their names.
_IGNORED = {".work", "tensorboard"}
# Their content has times or random names in it.
_PRESENT = {"index.html", "checksums.json", "index.json", "_CHECKPOINT_METADATA"}
_TORCH = ("torch", "diffusers", "mimicmotion_jax.convert.official")
_DATA = ("mimicmotion_jax.data.builder", "apache_beam.runners.portability.fn_api_runner.fn_runner")
_METRICS = ("skimage.metrics",)
_ENDS = {"SIGKILL": (-signal.SIGKILL,), "SIGTERM": (-signal.SIGTERM,), "SIGINT": (130,), "ENOSPC": (1, 2)}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of the product."""

    main: Callable[[list[str]], int | None]
    argv: Callable[[Path, Path], list[Any]]
    """Arguments, given the folders of inputs and outputs."""
    repeats: bool = False
    """Does its work again when its output is there."""
    kept: tuple[str, ...] = ()
    """Files of an earlier output that a fault may not touch."""
    statuses: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=lambda: _ENDS)
    """Exit statuses by fault, beside 0; minus the number of a signal that ended it."""
    has_networks: bool = True
    imports: tuple[str, ...] = ()
    """Modules that it imports when it needs them."""

    def run(self, inputs: Path, outputs: Path) -> int | None:
        """Run it in this process."""
        return self.main([str(argument) for argument in self.argv(inputs, outputs)])


def _sample(inputs: Path, outputs: Path) -> list[Any]:
    reference = ["--image", inputs / "person.png", "--image-pose", inputs / "person.npz"]
    files = ["--checkpoint", inputs / "checkpoint", *reference, "--motion", inputs / "motion.npz"]
    return [*files, "--output", outputs / "video.mp4", "--save-pose", *_SMALL, *_LONG]


def _jobs(inputs: Path, outputs: Path) -> list[Any]:
    files = ["--checkpoint", inputs / "checkpoint", "--jobs", inputs / "jobs.jsonl", "--output-dir", outputs]
    return [*files, "batch_size=2", *_SMALL, *_LONG]


def _train(inputs: Path, outputs: Path) -> list[Any]:
    files = [f"checkpoint={inputs}/checkpoint", f"data.dataset={inputs}/dataset", f"output={outputs}/run"]
    data = [f"data.width={SIZE}", f"data.height={SIZE}", "data.num_frames=4", "data.interval=[1,2]"]
    run = ["steps=4", "batch_size=2", "dtype=float32", "log_every=1", "save_every=1", "keep=2", "sample_every=null"]
    return [*files, *data, *run, "remat=false", "mesh.data=1", "mesh.fsdp=1"]


def _evaluate(inputs: Path, outputs: Path) -> list[Any]:
    files = ["--checkpoint", inputs / "checkpoint", "--data", inputs / "test_set", "--output", outputs / "scores"]
    return [*files, "--protocol", "synthetic", *_SMALL, "num_inference_steps=2", "decode_chunk_size=2"]


def _convert(inputs: Path, outputs: Path) -> list[Any]:
    files = ["--svd", inputs / "torch/svd", "--mimicmotion", inputs / "torch/MimicMotion.pth"]
    return [*files, "--output", outputs / "converted", "--overwrite"]


def _pose(inputs: Path, outputs: Path) -> list[Any]:
    files = ["--image", inputs / "person.png", "--image-pose", inputs / "person.npz", "--motion", inputs / "motion.npz"]
    return ["--pose-only", *files, "--output", outputs / "video.mp4", "height=64", "width=64"]


def _score(inputs: Path, outputs: Path) -> list[Any]:
    files = ["--generated", inputs / "test_set", "--data", inputs / "test_set", "--output", outputs / "scores"]
    return [*files, "--protocol", "synthetic"]


COMMANDS = {
    "sample": Command(sample.main, _sample, repeats=True, kept=("video.mp4",)),
    "jobs": Command(sample.main, _jobs),
    "prepare": Command(
        prepare.main,
        lambda inputs, outputs: ["--videos", inputs / "videos", "--output", outputs / "data", "min_frames=5"],
        has_networks=False,
        imports=_DATA,
    ),
    "train": Command(
        train.main, _train, statuses={**_ENDS, "SIGTERM": (-signal.SIGTERM, 128 + signal.SIGTERM)}, imports=_DATA
    ),
    "convert": Command(convert.main, _convert, repeats=True, imports=_TORCH),
    "export": Command(
        convert.main,
        lambda inputs, outputs: ["--to-torch", inputs / "checkpoint", "--output", outputs / "torch", "--overwrite"],
        repeats=True,
        imports=_TORCH,
    ),
    "evaluate": Command(evaluate.main, _evaluate, imports=_METRICS),
    "pose": Command(sample.main, _pose, repeats=True, kept=("video_pose.mp4", "video_pose.npz"), has_networks=False),
    "score": Command(evaluate.main, _score, has_networks=False, imports=_METRICS),
}


def prepare_inputs(folder: Path, commands: Collection[str]) -> None:
    """Write what these commands read."""
    folder.mkdir(parents=True)
    if any(COMMANDS[name].has_networks for name in commands):
        pipeline = MimicMotionPipeline.random(_smallest_model(), dtype="float32", mesh=sharding.sampling_mesh(1))
        pipeline.save_pretrained(folder / "checkpoint")
    if "convert" in commands:
        export_torch(folder / "checkpoint", folder / "torch", progress=False)
    picture, pose = demo_reference(SIZE, SIZE)
    Image.fromarray(picture).save(folder / "person.png")
    save_keypoints(pose, folder / "person.npz")
    save_keypoints(demo_motion(FRAMES, 12, SIZE, SIZE), folder / "motion.npz")
    inputs = {"image": "person.png", "image_pose": "person.npz", "motion": "motion.npz"}
    jobs = [inputs | {"output": name, "seed": seed} for seed, name in enumerate(("a.mp4", "b.gif", "pictures"))]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    (folder / "videos").mkdir()
    for number, shade in enumerate((60, 160)):
        keypoints = demo_motion(12, 12, SIZE, SIZE)[number:]
        drawn = draw_poses(keypoints, SIZE, SIZE)
        frames = np.where(drawn > 20, drawn, np.uint8(shade))
        with open_writer(folder / f"videos/{number}.mp4", 12, SIZE, SIZE, progress=False) as writer:
            writer.write(frames)
        save_keypoints(keypoints, folder / f"videos/{number}.npz")
        (folder / f"test_set/{number}").mkdir(parents=True)
        for index, frame in enumerate(frames[: FRAMES + 1]):
            Image.fromarray(frame).save(folder / f"test_set/{number}/{index:05d}.png")
        save_keypoints(keypoints[: FRAMES + 1], folder / f"test_set/{number}.npz")
    if "train" in commands:
        prepare.main(["--videos", str(folder / "videos"), "--output", str(folder / "dataset"), "min_frames=5"])


def _smallest_model() -> ModelConfig:
    tiny = ModelConfig.tiny()
    unet = dataclasses.replace(
        tiny.unet,
        down_block_types=tiny.unet.down_block_types[:1],
        up_block_types=tiny.unet.up_block_types[1:],
        block_out_channels=(32,),
        num_attention_heads=(2,),
    )
    return dataclasses.replace(tiny, unet=unet, window_size=4)


def warm_up(commands: Collection[str]) -> None:
    """Import modules and trace networks in this process, without starting jax's devices, and so not in every child."""
    for module in {module for name in commands for module in COMMANDS[name].imports}:
        importlib.import_module(module)
    if any(COMMANDS[name].has_networks for name in commands):
        for network in NETWORKS:
            abstract_network(network, _smallest_model())


def contents(folder: Path) -> dict[str, str]:
    """Files and folders of an output with hashes of what they mean; arrays for the files that hold them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _IGNORED & set(Path(name).parts) or any((parent / "_METADATA").exists() for parent in path.parents):
            continue
        found[name] = _meaning(path)
    return found


def _meaning(path: Path) -> str:
    if path.is_dir():
        return _arrays(path) if (path / "_METADATA").exists() else "folder"
    if path.name in _PRESENT:
        return "present"
    content = path.read_bytes()
    if path.name == "metrics.jsonl":
        lines = map(json.loads, content.splitlines())
        content = json.dumps([[line["step"], line["loss"]] for line in lines]).encode()
    if path.name == "results.json":
        content = json.dumps(json.loads(content)["summary"]).encode()
    return hashlib.sha256(content).hexdigest()


def _arrays(folder: Path) -> str:
    """SHA-256 of all arrays that orbax wrote into a folder."""
    digest = hashlib.sha256()
    with ocp.StandardCheckpointer() as checkpointer:
        for key, value in jax.tree.leaves_with_path(checkpointer.restore(folder)):
            digest.update(jax.tree_util.keystr(key).encode() + np.asarray(value).tobytes())
    return digest.hexdigest()
