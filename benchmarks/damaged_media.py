"""Damaged media files through the ways in: the check of a picture and a motion, their preparation, and training data.

Bytes flipped, cut, doubled, zeroed, headers forged, files of one kind under the name of another. Each must end well or
in one sentence (`InputError`): no traceback, no hang, no memory beyond a limit.
"""

import functools
import io
import json
import resource
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.pose.detect import People
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.encode import open_writer

SIZE = 64
MAX_SECONDS = 20
MAX_MEMORY = 1536  # MiB above that of an idle process
_PICTURES = (".png", ".jpg", ".webp", ".bmp", ".tiff")


def write_originals(folder: Path) -> list[Path]:
    """Write an intact file of each kind."""
    folder.mkdir(parents=True)
    picture, pose = demo_reference(SIZE, SIZE)
    for suffix in _PICTURES:
        Image.fromarray(picture).save(folder / f"picture{suffix}")
    motion = demo_motion(8, 12, SIZE, SIZE)
    save_keypoints(motion, folder / "keypoints.npz")
    save_keypoints(pose, folder / "pose.npz")
    for suffix in (".mp4", ".gif"):
        with open_writer(folder / f"video{suffix}", 12, SIZE, SIZE, progress=False) as writer:
            writer.write(draw_poses(motion, SIZE, SIZE))
    (folder / "video.mkv").write_bytes((folder / "video.mp4").read_bytes())
    people = [{"pose_keypoints_2d": np.random.default_rng(0).uniform(0, SIZE, 54).tolist()}]
    frames = [{"people": people, "canvas_width": SIZE, "canvas_height": SIZE} for _ in range(3)]
    (folder / "poses.json").write_text(json.dumps(frames))
    return sorted(folder.iterdir())


def damage(content: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Damage a file's bytes; returns what was done, and the new bytes."""
    data, size = bytearray(content), len(content)
    at = int(random.integers(size))
    match int(random.integers(7)):
        case 0:
            for place in random.integers(0, size, 1 + int(random.integers(20))):
                data[place] = int(random.integers(256))
            return "bytes changed", bytes(data)
        case 1:
            return "cut", bytes(data[:at])
        case 2:
            return "part removed", bytes(data[:at] + data[at + 1 + int(random.integers(64)) :])
        case 3:
            end = min(size, at + 1 + int(random.integers(4096)))
            data[at:end] = bytes(end - at)
            return "zeroed", bytes(data)
        case 4:
            # The first bytes hold sizes, counts and durations.
            head = int(random.integers(min(size, 512)))
            data[head : head + 4] = b"\xff\xff\xff\xff" if random.uniform() < 0.5 else b"\x7f\xff\xff\xff"
            return "header forged", bytes(data[: max(size, head + 4)])
        case 5:
            return "part doubled", bytes(data[:at] + data[at // 2 :])
        case _:
            return "end replaced", bytes(data[:at]) + random.bytes(size - at)


def hostile_files(folder: Path) -> list[Path]:
    """Write small files that promise enormous content."""
    files = []

    def add(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        files.append(folder / name)

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(buffer, "PNG")
    huge = bytearray(buffer.getvalue())
    huge[16:24] = (30_000).to_bytes(4, "big") * 2
    add("huge.png", bytes(huge))
    Image.new("1", (14_000, 13_000)).save(folder / "huge_true.png")
    files.append(folder / "huge_true.png")
    bomb = io.BytesIO()
    quickly = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with zipfile.ZipFile(bomb, "w", **quickly) as archive, archive.open("body.npy", "w") as file:
        np.save(file, np.zeros((2_000_000, 1, 18, 2), np.float32))
    add("bomb.npz", bomb.getvalue())
    return files


def try_files(count: int, seed: int, folder: Path, run_forked: Callable[..., Any]) -> dict[str, Any]:
    """Try damaged files of every kind, in processes of twenty, and all videos as training data at once.

    Args:
        count: number of damaged files.
        seed: of the damage.
        folder: to work in.
        run_forked: `faults.run_forked`.
    """
    if not count:
        return {"files": 0, "problems": []}
    originals, random = write_originals(folder / "originals"), np.random.default_rng(seed)
    damaged = folder / "damaged"
    damaged.mkdir()
    files, done = [], {}
    for number in range(count):
        original = originals[number % len(originals)]
        suffix = original.suffix if random.uniform() < 0.9 else originals[random.integers(len(originals))].suffix
        path = damaged / f"{number:04d}{suffix}"
        done[path.name], content = damage(original.read_bytes(), random)
        path.write_bytes(content)
        files.append(path)
    hostile = folder / "hostile"
    hostile.mkdir()
    files += hostile_files(hostile)
    outcomes: dict[str, int] = {}
    problems, peak = [], 0.0
    for start in range(0, len(files), 20):
        report = folder / "report.jsonl"
        report.unlink(missing_ok=True)
        group = files[start : start + 20]
        ended = run_forked(functools.partial(_try_group, group, originals[0].parent, report), folder / "log")
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        if ended.status or len(lines) < len(group):
            problems.append(f"{group[len(lines)].name if len(lines) < len(group) else ''}: {ended.stderr[-1000:]}")
        for line in lines:
            outcomes[line["outcome"]] = outcomes.get(line["outcome"], 0) + 1
            peak = max(peak, line["mebibytes"])
            if line["outcome"] == "error" or line["seconds"] > MAX_SECONDS or line["mebibytes"] > MAX_MEMORY:
                problems.append(f"{line['file']} ({done.get(line['file'], 'hostile')}): {line}")
    problems += _try_dataset(damaged, originals[0].parent / "keypoints.npz", folder, run_forked)
    return {"files": len(files), "outcomes": outcomes, "peak_mebibytes": round(peak), "problems": problems}


def _try_group(files: list[Path], originals: Path, report: Path) -> int:
    """Check and prepare each file as a picture or as a motion; append a line for each to `report`."""
    preparer, options = Preparer(SIZE), PipelineOptions(height=SIZE, width=SIZE, align="none", detector="mediapipe")
    preparer.survey._detectors[options.detector, None, None] = _Nobody()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in files:
        picture = path.suffix in _PICTURES
        inputs = (path, originals / "keypoints.npz") if picture else (originals / "picture.png", path)
        began, reason = time.monotonic(), ""
        try:
            for call in (preparer.check, preparer):
                call(*inputs, options, originals / "pose.npz")
            outcome = "read"
        except InputError as error:
            outcome, reason = "refused", str(error)
            outcome = "error" if "\n" in reason or not reason else outcome
        except Exception as error:
            outcome, reason = "error", f"{type(error).__name__}: {error}"
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        line = {"file": path.name, "outcome": outcome, "reason": reason[:300]}
        with report.open("a") as file:
            numbers = {"seconds": round(time.monotonic() - began, 2), "mebibytes": round(memory)}
            file.write(json.dumps(line | numbers) + "\n")
    return 0


class _Nobody:
    """Detector that reads every frame and finds nobody: detectors are not what is tried here."""

    def detect(self, frame: np.ndarray) -> People:
        return np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32)

    def track(self, frames: Iterable[np.ndarray]) -> Iterator[People]:
        return map(self.detect, frames)


def _try_dataset(videos: Path, keypoints: Path, folder: Path, run_forked: Callable[..., Any]) -> list[str]:
    """Prepare all damaged videos, with intact keypoints, as training data: each is used or skipped with a reason."""
    output, poses = folder / "dataset", folder / "poses"
    poses.mkdir()
    for video in videos.iterdir():
        shutil.copy(keypoints, poses / f"{video.stem}.npz")

    def work() -> int:
        try:
            prepare(VideoFolder(videos, poses), output, PrepareConfig(min_frames=2), progress=False)
        except InputError as error:
            if "none of the" not in str(error):
                raise
        return 0

    ended = run_forked(work, folder / "log")
    summary = json.loads((output / "summary.json").read_text()) if (output / "summary.json").exists() else {}
    surprises = [f"{name}: {reason}" for name, reason in summary.get("skipped", {}).items() if "unexpected" in reason]
    return surprises + ([ended.stderr[-1000:]] if ended.status or "Traceback" in ended.stderr else [])
