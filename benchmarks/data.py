"""Training samples per second from the data loader, compared with those that a training step consumes.

    python benchmarks/data.py [--workers N] [--seconds S]

Makes a small dataset of textured videos in a temporary folder, reads it at several sizes, prints JSON and writes it to
benchmarks/results/data.json.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import Item, OpenedVideo
from mimicmotion_jax.pose.keypoints import GROUPS, Keypoints
from mimicmotion_jax.runtime.atomic_files import write_file

ROOT = Path(__file__).resolve().parent.parent

NUM_VIDEOS, NUM_FRAMES, WIDTH, HEIGHT, FPS = 3, 100, 1024, 576, 30
SIZES = [(1024, 576, 16), (512, 320, 16), (256, 192, 8)]

# A full-size step at 576x1024x16: forward and backward, per sample of a batch of 8.
FLOP_PER_SAMPLE = 1230e12 / 8
MFU = 0.4
# Peak FLOP/s in bfloat16 of one device, and number of devices per host.
DEVICES = {"A100": (312e12, 8), "TPU v5p": (459e12, 4), "TPU v5e": (197e12, 4)}
PACKAGES = ("grain", "tensorflow-datasets", "array-record", "av", "opencv-python", "pillow", "numpy")


class Textures:
    """Source of videos in which smooth noise and grain drift, with a moving figure."""

    def items(self, progress: bool) -> list[Item]:
        del progress
        return [Item(f"video {n}", str(n), str(n), has_keypoints=True) for n in range(NUM_VIDEOS)]

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[OpenedVideo]:
        seed = int(item.content)

        def frames() -> Iterator[np.ndarray]:
            random = np.random.default_rng(seed)
            smooth = cv2.resize(random.integers(0, 256, (36, 64, 3), np.uint8), (WIDTH, HEIGHT)).astype(np.int16)
            grain = random.integers(-12, 13, (HEIGHT, WIDTH, 3)).astype(np.int16)
            for n in range(NUM_FRAMES):
                drifted = np.roll(smooth, (n, 2 * n), (0, 1)) + np.roll(grain, (3 * n, n), (0, 1))
                yield np.clip(drifted, 0, 255).astype(np.uint8)

        random = np.random.default_rng(seed)
        walk = 0.1 * np.sin(np.arange(NUM_FRAMES) / 10)[:, None, None]
        arrays = {}
        for name, points in GROUPS.items():
            place = random.uniform((0.3, 0.1), (0.6, 0.9), (1, int(np.prod(points)), 2))
            arrays[name] = (place + walk).reshape(NUM_FRAMES, 1, *points, 2)
            arrays[f"{name}_score"] = np.full((NUM_FRAMES, 1, *points), 0.9)
        yield OpenedVideo(FPS, NUM_FRAMES, frames, Keypoints(**arrays, width=WIDTH, height=HEIGHT, fps=FPS))


def measure(config: DataConfig, seconds: float) -> tuple[float, float]:
    """Return samples per second with running workers, and CPU seconds of this process per sample."""
    loader = ClipLoader(config, batch_size=1, seed=0)
    for _ in range(2 * max(config.num_workers, 1) + config.prefetch):
        next(loader)
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        next(loader)
        count += 1
    rate, cost = count / (time.perf_counter() - start), (time.process_time() - cpu) / count
    loader.close()
    return rate, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="default: one per core")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="seconds per measurement; default: 15")
    args = parser.parse_args()

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = prepare(Textures(), folder, PrepareConfig(), progress=False)
        preparing = time.perf_counter() - start
        stored = sum(path.stat().st_size for path in Path(folder, "pose_videos").rglob("*"))
        rows = []
        for width, height, num_frames in SIZES:
            for num_workers in sorted({0, args.workers}):
                config = DataConfig(
                    dataset=folder, width=width, height=height, num_frames=num_frames, num_workers=num_workers
                )
                rate, cost = measure(config, args.seconds)
                row = {"size": f"{height}x{width}x{num_frames}", "workers": num_workers}
                row["samples_per_second"] = round(rate, 2)
                if not num_workers:
                    row["cpu_seconds_per_sample"] = round(cost, 2)  # independent of other work on the machine
                rows.append(row)
    cost = rows[0]["cpu_seconds_per_sample"]
    needs = {}
    for name, (peak, per_host) in DEVICES.items():
        rate = peak * MFU / FLOP_PER_SAMPLE
        needs[name] = {
            "samples_per_second_and_device": round(rate, 2),
            "devices_per_host": per_host,
            "samples_per_second_and_host": round(rate * per_host, 2),
            "busy_cores_per_host": round(rate * per_host * cost, 1),
        }
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],  # load average before and after
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "dataset": {
            "videos": summary.prepared,
            "frames": summary.frames,
            "size": f"{HEIGHT}x{WIDTH}",
            "megabytes": round(stored / 1e6, 1),
            "frames_prepared_per_second": round(summary.frames / preparing, 1),
        },
        "loader": rows,
        "a_training_step_consumes": {"mfu": MFU, "teraflop_per_sample": FLOP_PER_SAMPLE / 1e12, "devices": needs},
    }
    text = json.dumps(result, indent=2)
    print(text)
    path = ROOT / "benchmarks" / "results" / "data.json"
    write_file(path, f"{text}\n".encode())


if __name__ == "__main__":
    main()
