"""Videos whose frames show their numbers, with keypoints that do as well."""

from pathlib import Path

import av
import numpy as np

from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import GROUPS, Keypoints

HEIGHT, WIDTH = 96, 160
SIZE = (128, 64)  # width and height at which encodings are stored
_BITS = 8


def counted_frames(num_frames: int, blue: int = 0) -> np.ndarray:
    """Make frames [num_frames, HEIGHT, WIDTH, 3] that show their number.

    Eight black or white fields at the top are the number in binary. Below, red grows from left to right, so that no
    frame is its own mirror image, and `blue` tells videos apart.
    """
    numbers = np.arange(num_frames)
    frames = np.zeros((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(_BITS):
        field = slice(bit * WIDTH // _BITS, (bit + 1) * WIDTH // _BITS)
        frames[:, : HEIGHT // 2, field] = (255 * ((numbers >> bit) & 1))[:, None, None, None]
    frames[:, HEIGHT // 2 :, :, 0] = np.linspace(0, 255, WIDTH)
    frames[:, HEIGHT // 2 :, :, 2] = blue
    return frames


def number_of(frame: np.ndarray, mirrored: bool = False) -> int:
    """Return the number that a frame shows, at any size."""
    row = frame[frame.shape[0] // 4].mean(-1)
    centres = ((np.arange(_BITS) + 0.5) * len(row) / _BITS).astype(int)
    bits = row[centres[::-1] if mirrored else centres] > 127
    return int((bits << np.arange(_BITS)).sum())


def blue_of(frame: np.ndarray) -> int:
    """Return the `blue` of the frame's video, to within a few levels."""
    return round(float(frame[3 * frame.shape[0] // 4, :, 2].mean()))


def is_mirrored(frame: np.ndarray) -> bool:
    """Return True if red falls from left to right."""
    row = frame[3 * frame.shape[0] // 4, :, 0].astype(float)
    return row[-1] < row[0]


def counted_keypoints(num_frames: int, score: float = 1.0) -> Keypoints:
    """Make a figure that moves to the right by 1/100 of the picture per frame; the left hand is higher."""
    random = np.random.default_rng(0)
    shapes = {name: random.uniform(0.3, 0.5, (1, 1, *points, 2)) for name, points in GROUPS.items()}
    shapes["hands"] = np.stack(
        [random.uniform((0.1, 0.1), (0.2, 0.3), (21, 2)), random.uniform((0.4, 0.6), (0.5, 0.8), (21, 2))]
    )
    step = np.arange(num_frames)[:, None, None, None] * np.array([0.01, 0])
    points = {}
    for name, size in GROUPS.items():
        shape = np.broadcast_to(shapes[name].reshape(1, 1, *size, 2), (num_frames, 1, *size, 2))
        points[name] = shape + (step if len(size) == 1 else step[:, :, None])
        points[f"{name}_score"] = np.full((num_frames, 1, *size), score)
    return Keypoints(**points, width=WIDTH, height=HEIGHT, fps=30)


def write_counted(path: Path, num_frames: int, blue: int = 0, keypoints: int | None = None, score: float = 1.0) -> Path:
    """Write a video of `counted_frames`, and beside it keypoints of as many frames (or of `keypoints`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for pixels in counted_frames(num_frames, blue):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    save_keypoints(counted_keypoints(num_frames if keypoints is None else keypoints, score), path.with_suffix(".npz"))
    return path
