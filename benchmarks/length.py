"""Time per frame and peak memory by length of the video; each length runs in a process of its own.

    python benchmarks/length.py [--windows 1 2 8 32] [--output benchmarks/results/length.json]

Generates the demonstration of `python sample.py` with the small model on all cores. Each length is generated twice and
the second run is timed, which compiles nothing. On CPU device memory is host memory, so the peak includes everything:
parameters, compiled programs, PoseNet's features and the latents of the whole video.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mimicmotion_jax.checkpoint import read_config
from mimicmotion_jax.cli import sample
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.inference.options import load_options
from mimicmotion_jax.runtime.atomic_files import write_file

OUTPUT = Path(__file__).resolve().parent / "results" / "length.json"


def frames_of(windows: int) -> int:
    """Frames of the longest video with that many windows, without the reference slot."""
    config, checkpoint_window = load_options(WEIGHTS), read_config(WEIGHTS).window_size
    counts = (n for n in range(1, 10_000) if config.plan(n + 1, checkpoint_window).num_windows > windows)
    return next(counts) - 1


def measure(num_frames: int) -> dict[str, float]:
    """Generate a video of `num_frames` in this process."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.perf_counter()
            sample.main(["--output", f"{folder}/out.mp4", f"num_frames={num_frames}", "side_by_side=false"])
            seconds = time.perf_counter() - start
    # VmHWM, because the peak of getrusage starts at the parent process's.
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return {"frames": num_frames, "seconds": round(seconds, 2), "peak_MiB": round(peak, 1)}


def main() -> None:
    """Measure all lengths, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 2, 8, 32])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    rows = []
    for windows in args.windows:
        command = [sys.executable, __file__, "--one", str(frames_of(windows))]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(run.stdout.splitlines()[-1])
        rows.append({"windows": windows, **found, "ms_per_frame": round(1000 * found["seconds"] / found["frames"], 1)})
        print(rows[-1], flush=True)
    first, last = rows[0], rows[-1]
    growth = (last["peak_MiB"] - first["peak_MiB"]) / max(last["frames"] - first["frames"], 1)
    report = {
        "command": "python benchmarks/length.py --windows " + " ".join(map(str, args.windows)),
        "machine": f"CPU, {platform.machine()}, python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
        "rows": rows,
        "MiB_per_frame": round(growth, 3),
    }
    write_file(args.output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
