"""FFmpeg's own command (from the package imageio-ffmpeg): makes files of every kind, and decodes them independently."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

EXACT = "bicubic+accurate_rnd+full_chroma_int"


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run FFmpeg; returns what it writes to its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def ffmpeg_frames(path: Path, width: int, height: int, filters: str = "null") -> np.ndarray:
    """[n, height, width, 3]: the frames as the command shows them, turned upright, none repeated or left out."""
    chain = f"{filters},scale={width}:{height}:flags={EXACT}"
    data = ffmpeg("-i", path, "-vf", chain, "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)
