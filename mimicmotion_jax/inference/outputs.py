"""What `sample.py` writes for a job: the video, and beside it, if asked for, the drawn skeleton and its keypoints."""

import contextlib
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.config import to_dict
from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.encode import VideoWriter, check_writable, open_writer, output_target
from mimicmotion_jax.video.provenance import provenance

_LABELS = ("reference", "motion", "result")
_MIN_PANEL = 256  # pixels of height: smaller videos are enlarged where they are shown side by side


def check_outputs(output: Path, config: GenerateConfig) -> None:
    """Fail before the work where the video, or the pose that is to lie beside it, cannot be written.

    Raises:
        InputError: as `check_writable`.
    """
    check_writable(output)
    if config.save_pose:
        points, video = _pose_paths(output)
        check_writable(video)
        if points.is_dir():
            raise InputError(f"cannot write {points}: it is a folder; remove it or choose another output.")


def check_inputs_stay(job: Job, config: GenerateConfig) -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: the video, or the pose beside it, would take the place of one of the job's inputs.
    """
    for output in written_paths(job.output, config.save_pose):
        for given in job.inputs:
            if takes_place_of(output, given):
                raise InputError(f"writing {output} would destroy the input {given}; give another output.")


def written_paths(output: Path, save_pose: bool) -> tuple[Path, ...]:
    """The files, or the folder of pictures, that a job with this output makes.

    Raises:
        InputError: unknown format.
    """
    return (output_target(output), *(_pose_paths(output) if save_pose else ()))


def takes_place_of(output: Path, given: Path) -> bool:
    """Whether writing `output` replaces `given`: by another name too, or as the folder that holds it."""
    if os.path.exists(output) and os.path.exists(given) and os.path.samefile(output, given):
        return True  # also where the file system takes upper and lower case for the same
    written, read = real_path(output), real_path(given)
    return written == read or written in read.parents


def real_path(path: Path) -> Path:
    """Absolute, without links; unlike `Path.resolve` it takes names that no file can have."""
    return Path(os.path.realpath(path))


def open_output(item: Prepared, config: GenerateConfig) -> contextlib.AbstractContextManager[VideoWriter]:
    """A writer of the job's video, as `open_writer`; nothing is written before it is entered.

    Raises:
        InputError: as `open_writer`.
    """
    height, width = item.image.shape[:2]
    if config.side_by_side:
        panel = np.zeros((1, height, width, 3), np.uint8)
        height, width = side_by_side([panel] * 3, max(height, _MIN_PANEL), labels=_LABELS).shape[1:3]
    return open_writer(
        item.output,
        item.keypoints.fps,
        width,
        height,
        crf=config.crf,
        audio_from=item.sound if item.output.suffix.lower() == ".mp4" else None,
        audio_start=item.sound_start,
        metadata=provenance(item.seed, to_dict(config)),
    )


def compose(
    item: Prepared, poses: DrawnPoses, pixels: UInt8[np.ndarray, "n h w 3"], start: int, config: GenerateConfig
) -> UInt8[np.ndarray, "n h2 w2 3"]:
    """Frames as they are shown: the result alone, or beside the reference and the skeleton.

    Args:
        item: the job.
        poses: the reference's drawn pose, then those of the motion.
        pixels: of the result.
        start: which of `poses` belongs to the first of `pixels`.
        config: whether to show them side by side.
    """
    if not config.side_by_side:
        return pixels
    panels = [item.image, poses[start : start + len(pixels)], pixels]
    return side_by_side(panels, max(pixels.shape[1], _MIN_PANEL), labels=_LABELS)


def save_pose(item: Prepared, poses: DrawnPoses) -> None:
    """Write the drawn skeleton and the keypoints of the motion, without the reference's.

    Raises:
        InputError: a file that cannot be written.
    """
    points, video = _pose_paths(item.output)
    points.parent.mkdir(parents=True, exist_ok=True)
    save_keypoints(item.keypoints[1:], points)
    _, height, width, _ = poses.shape
    with open_writer(video, item.keypoints.fps, width, height) as writer:
        for start in range(1, len(poses), 16):
            writer.write(poses[start : start + 16])


def _pose_paths(output: Path) -> tuple[Path, Path]:
    """Keypoints and drawn skeleton: beside the video, or beside the folder of its pictures."""
    target = output_target(output)
    stem = target.stem if target.suffix.lower() in (".mp4", ".gif") else target.name
    return target.with_name(f"{stem}_pose.npz"), target.with_name(f"{stem}_pose.mp4")
