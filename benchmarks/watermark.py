"""Detection of the watermark after attacks, its false positives, its power and its time.

    python benchmarks/watermark.py [--media FOLDER] [--scenes 4] [--keys 100] [--output results/watermark.json]

Clips of three seconds at 8 frames per second and 576x1024 (or 1024x576): scenes of the synthetic world, and two
stretches of each video in `FOLDER`. Each is marked, written as `save` writes it (CRF 18), attacked with FFmpeg by
random parameters, and searched. Unmarked clips are searched with the true key and with many others. The results are
written after each clip.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mimicmotion_jax.provenance import watermark_detection as detection
from mimicmotion_jax.provenance.watermark import PSNR, mark
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.decode import VIDEO_SUFFIXES, open_video
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.image import crop_resize

OUTPUT = Path(__file__).resolve().parent / "results" / "watermark.json"
FPS, SECONDS, SHORT, LONG = 8, 3, 576, 1024
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-crf")


def clips(media: Path | None, scenes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and frames [24, H, W, 3] of each clip."""
    for number in range(scenes):
        framing = ("half", "full")[number % 2]
        scene = Scene(2 * number + 1, number, number, framing, SHORT, LONG, FPS * SECONDS, FPS)
        yield f"synthetic {number}", render(scene).frames
    for path in sorted(media.iterdir() if media else ()):
        if path.suffix not in VIDEO_SUFFIXES:
            continue
        video = open_video(path)
        height, width = (LONG, SHORT) if video.height > video.width else (SHORT, LONG)
        stride = max(1, round(video.fps / FPS))
        length = FPS * SECONDS * stride
        for part, start in enumerate({0, max(0, video.num_frames - length)}):
            frames = video.frames(stride, start, start + length)
            yield f"{path.stem} {part}", np.stack([crop_resize(frame, height, width) for frame in frames])


def attacks(generator: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """FFmpeg's arguments by kind, with parameters drawn at random."""
    scale, speed = generator.uniform(0.5, 1.5), generator.uniform(0.7, 1.4)
    x, y = generator.uniform(0, 0.1, 2)
    resize = f"scale=trunc(iw*{scale:.4f}/2)*2:trunc(ih*{scale:.4f}/2)*2"
    crop = f"crop=trunc(iw*0.9/2)*2:trunc(ih*0.9/2)*2:iw*{x:.4f}:ih*{y:.4f}"
    retime = f"setpts={speed:.4f}*PTS,fps={generator.integers(6, 16)}"
    vp9 = ("-c:v", "libvpx-vp9", "-crf", "40", "-b:v", "0", "-cpu-used", "8", "-deadline", "realtime")
    hevc = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-crf", "28")
    return {
        "H.264 CRF 28": (*H264, "28"),
        "half size, CRF 28": ("-vf", "scale=iw/2:ih/2", *H264, "28"),
        "0.5 to 1.5 times, CRF 28": ("-vf", resize, *H264, "28"),
        "10 % crop, CRF 28": ("-vf", crop, *H264, "28"),
        "re-timed, CRF 28": ("-vf", retime, *H264, "28"),
        "all four": ("-vf", f"{crop},{resize},{retime}", *H264, "28"),
        "H.264 CRF 32": (*H264, "32"),
        "mirrored, contrast 0.7": ("-vf", "hflip,eq=brightness=-0.1:contrast=0.7:saturation=0.3", *H264, "28"),
        "VP9 CRF 40": vp9,
        "HEVC CRF 28": hevc,
        "GIF, 360 pixels wide": ("-vf", "fps=6,scale=360:-2,split[a][b];[a]palettegen[p];[b][p]paletteuse"),
    }


def attack(source: Path, arguments: tuple[str, ...], folder: Path) -> list[np.ndarray]:
    """Frames of an attacked copy."""
    suffix = "webm" if "libvpx-vp9" in arguments else "gif" if "palette" in " ".join(arguments) else "mp4"
    target = folder / f"attacked.{suffix}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(source), *arguments, str(target)]
    subprocess.run(command, check=True)
    return list(open_video(target).frames())


def milliseconds_per_frame() -> float:
    """Processor time for marking a frame of 576x1024 in one thread, the lowest of 200."""
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (1, LONG, SHORT, 3), np.uint8)[0], (0, 0), 2)
    threads, times = cv2.getNumThreads(), []
    cv2.setNumThreads(1)
    for _ in range(200):
        start = time.process_time()
        mark(frame[None])
        times.append(1000 * (time.process_time() - start))
    cv2.setNumThreads(threads)
    return round(min(times), 2)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, help="folder of videos")
    parser.add_argument("--scenes", type=int, default=4, help="scenes of the synthetic world")
    parser.add_argument("--keys", type=int, default=100, help="other keys that each unmarked clip is searched with")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    found: dict[str, list[detection.Detection]] = defaultdict(list)
    psnr, false_scores, false_rates, done = [], [], [], []
    mark_ms = milliseconds_per_frame()
    for name, frames in clips(args.media, args.scenes):
        marked = mark(frames)
        psnr += [
            10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in zip(frames, marked, strict=True)
        ]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "marked.mp4"
            with open_writer(source, FPS, frames.shape[2], frames.shape[1], progress=False) as writer:
                writer.write(marked)
            for kind, arguments in attacks(generator).items():
                found[kind].append(detection.detect(attack(source, arguments, Path(folder))))
        for result in detection.detect_keys(frames, [detection.KEY, *generator.integers(2**32, size=args.keys)]):
            false_scores.append(result.score)
            false_rates.append(result.false_positive_rate)
        done.append(name)
        print(name, {kind: round(results[-1].score, 1) for kind, results in found.items()}, flush=True)
        write(args.output, mark_ms, found, psnr, false_scores, false_rates, done)


def write(output, mark_ms, found, psnr, false_scores, false_rates, done) -> None:
    """Write what was measured so far."""
    everything = [result for results in found.values() for result in results]
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": platform.machine(),
        "clips": done,
        "seconds_per_clip": SECONDS,
        "frames_per_second": FPS,
        "mark_ms_per_frame_576x1024": mark_ms,
        "psnr_db": {"asked_for": PSNR, "lowest": round(min(psnr), 2), "mean": round(float(np.mean(psnr)), 2)},
        "false_positive_rate_asked_for": detection.MAX_FALSE_POSITIVE_RATE,
        "detected": {
            kind: {
                "found": sum(result.found for result in results),
                "of": len(results),
                "lowest_score": round(min(result.score for result in results), 1),
                "highest_bound": float(f"{max(result.false_positive_rate for result in results):.1e}"),
            }
            for kind, results in found.items()
        },
        "detected_in_all": {"found": sum(result.found for result in everything), "of": len(everything)},
        "unmarked": {
            "searches": len(false_scores),
            "highest_score": round(max(false_scores), 2),
            "share_with_bound_below": {
                str(bound): round(float(np.mean(np.array(false_rates) < bound)), 5) for bound in (0.5, 0.1, 0.01)
            },
        },
    }
    write_file(output, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
