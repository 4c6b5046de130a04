"""Peak memory of the process against the length of the video, in processes of their own.

    python benchmarks/memory.py [--frames 48 240]

The small model on its own inputs, 192x320, one denoising step. On CPU the device's memory is the host's, so the pose
features (one array per video) are in the figure; frames, drawn poses and decoded pictures are streamed and are not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def measure(num_frames: int) -> float:
    """Generate a video of `num_frames` in this process; MiB at the peak."""
    from mimicmotion_jax.demo import run_demo

    with tempfile.TemporaryDirectory() as folder:
        run_demo(
            Path(folder) / "out.mp4", None, [f"max_frames={num_frames}", "num_inference_steps=1", "size=[192,320]"]
        )
    # Unlike getrusage, VmHWM does not begin at the parent's peak.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[48, 240])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(measure(args.one))
        return
    peaks = {}
    for num_frames in args.frames:
        command = [sys.executable, __file__, "--one", str(num_frames)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
        peaks[num_frames] = round(float(run.stdout.split()[-1]), 1)
    first, last = min(peaks), max(peaks)
    growth = (peaks[last] - peaks[first]) / (last - first)
    print(json.dumps({"size": "192x320", "peak_MiB": peaks, "MiB_per_frame": round(growth, 3)}, indent=2))


if __name__ == "__main__":
    main()
