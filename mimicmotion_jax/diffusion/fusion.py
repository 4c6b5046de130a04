"""Window plans, with which a video of any length is denoised in overlapping windows of a fixed number of frames.

A plan is two tables, the frames of each window and the weight of each of its predictions. In every denoising step each
window is predicted separately and a frame's prediction is the weighted mean over the windows that contain it. An Euler
step is linear, so averaging predictions over one shared latent per frame equals averaging copies of latents, as the
paper's Algorithm 1 does. The modes differ only in their tables:

- `official`: triangular weights over the window (the released code).
- `progressive`: weights ramp linearly over each overlap with the previous window (paper, section 3.5, Algorithm 1).
- `uniform`: all windows have the same weight (MultiDiffusion).
- `none`: windows do not share frames; each frame belongs to the first window that contains it.

With a reference slot, frame 0 stands for the reference image and is part of every window, as the official checkpoints
were trained; the windows' other frames run over the rest of the video.
"""

from typing import Literal, NamedTuple

import numpy as np
from beartype import beartype
from jaxtyping import Float, Int, jaxtyped

from mimicmotion_jax.runtime.errors import InputError

FusionMode = Literal["official", "progressive", "uniform", "none"]


class WindowPlan(NamedTuple):
    """Frames of each window and weights of their predictions; the weights of a frame sum to one."""

    indices: Int[np.ndarray, "windows size"]
    weights: Float[np.ndarray, "windows size"]

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self.indices)


@jaxtyped(typechecker=beartype)
def make_plan(
    num_frames: int, window_size: int, overlap: int, mode: FusionMode = "progressive", reference_slot: bool = True
) -> WindowPlan:
    """Make the plan of a video with `num_frames` frames, including the reference slot if there is one.

    Args:
        num_frames: at least `window_size`; the caller extends shorter videos.
        window_size: frames per window (N in the paper), including the slot.
        overlap: frames that neighbouring windows share (C in the paper). The official code counts the slot as well, so
            its windows share `overlap - 1` frames of the video. The last window ends with the video and may share
            more.
        mode: how predictions of one frame are weighted.
        reference_slot: put frame 0 into every window, as the official mode always does.

    Raises:
        InputError: the overlap leaves no new frames per window, or the window or the video is too short.
    """
    slot = int(reference_slot or mode == "official")
    if window_size < slot + 1:
        raise InputError(f"window_size must be at least {slot + 1}, not {window_size}.")
    if num_frames < window_size:
        raise InputError(f"a video of {num_frames} frames is shorter than the window of {window_size}.")
    shared = 0 if mode == "none" else overlap - (mode == "official")
    segment = window_size - slot  # frames of the video per window
    if overlap < 0 or shared >= segment:
        limit = segment - 1 + (mode == "official")
        raise InputError(
            f"window_overlap must lie between 0 and {limit} for a window of {window_size} frames, not {overlap}."
        )
    starts = _starts(num_frames - slot, segment, segment - max(shared, 0))
    indices = starts[:, None] + np.arange(segment) + slot
    indices = np.concatenate([np.zeros((len(starts), slot), int), indices], axis=1)
    if mode == "official":
        raw = np.tile(_triangle(window_size), (len(starts), 1))
    else:
        raw = _SEGMENT_WEIGHTS[mode](starts, segment)
        # All windows share the slot with equal weights.
        raw = np.concatenate([np.ones((len(starts), slot)), raw], axis=1)
    totals = np.zeros(num_frames)
    np.add.at(totals, indices, raw)
    return WindowPlan(indices.astype(np.int32), (raw / totals[indices]).astype(np.float32))


def plan_seams(plan: WindowPlan, num_frames: int) -> list[int]:
    """Return the frames that other windows cover than the frame before; 0 is the first one after the reference.

    Args:
        plan: windows over `num_frames` frames or more; frame 0 is the reference's.
        num_frames: number of frames, the reference included.
    """
    covered = np.zeros((plan.num_windows, plan.indices.max() + 1), bool)
    rows = np.broadcast_to(np.arange(plan.num_windows)[:, None], plan.indices.shape)
    covered[rows, plan.indices] = plan.weights > 0
    moving = covered[:, 1:num_frames]
    return [int(frame) for frame in 1 + np.flatnonzero((moving[:, 1:] != moving[:, :-1]).any(0))]


def _starts(length: int, segment: int, stride: int) -> Int[np.ndarray, " windows"]:
    starts = np.arange(0, length - segment + 1, stride)
    return starts if starts[-1] + segment == length else np.append(starts, length - segment)


def _triangle(size: int) -> Float[np.ndarray, " size"]:
    position = (np.arange(size) + 0.5) * 2 / size
    return np.minimum(position, 2 - position)


def _uniform(starts: Int[np.ndarray, " windows"], segment: int) -> Float[np.ndarray, "windows segment"]:
    return np.ones((len(starts), segment))


def _first_owner(starts: Int[np.ndarray, " windows"], segment: int) -> Float[np.ndarray, "windows segment"]:
    taken_until = np.concatenate([[0], starts[:-1] + segment])
    return (starts[:, None] + np.arange(segment) >= taken_until[:, None]).astype(float)


def _progressive(starts: Int[np.ndarray, " windows"], segment: int) -> Float[np.ndarray, "windows segment"]:
    """Weights from blending windows one after the other: over an overlap of c frames, window i enters by j / (c + 1).

    For c <= segment / 2 these are the weights of Algorithm 1; if the last window overlaps by more, the ramp runs over
    the actual overlap and earlier windows keep their proportions.
    """
    frames = starts[:, None] + np.arange(segment)
    weights = np.ones((len(starts), segment))
    for i in range(1, len(starts)):
        overlap = starts[i - 1] + segment - starts[i]
        ramp = np.arange(1, overlap + 1) / (overlap + 1)
        weights[i, :overlap] = ramp
        for j in range(overlap):
            weights[:i][frames[:i] == starts[i] + j] *= 1 - ramp[j]
    return weights


_SEGMENT_WEIGHTS = {"progressive": _progressive, "uniform": _uniform, "none": _first_owner}
