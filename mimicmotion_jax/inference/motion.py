"""The driving motion: a file, frames, keypoints or skeletons that are drawn already, opened but not yet read."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mimicmotion_jax.inference.job import DrawnFrames
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.picture import local_path
from mimicmotion_jax.pose.files import is_keypoints, load_keypoints
from mimicmotion_jax.pose.keypoints import MAX_FPS, MIN_FPS, Keypoints
from mimicmotion_jax.pose.recording import SizeMissingError, check_distances
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.audio import find_sound
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.image import rgb_pixels

Frame = UInt8[np.ndarray, "height width 3"]
Motion = str | os.PathLike[str] | Keypoints | DrawnPoses | UInt8[np.ndarray, "f height width 3"] | Sequence[Image.Image]

ASSUMED_FPS = 24.0
_BLACK = 0.5  # least fraction of black pixels in every frame of drawn skeletons


@dataclasses.dataclass(frozen=True)
class OpenedMotion:
    """A motion whose length is known.

    Attributes:
        name: for messages.
        fps: frames per second.
        num_frames: length.
        keypoints: of everybody, where the motion is given so.
        frames: reads pictures of a range of frames, where it is not.
        sound: file that has the motion's sound.
    """

    name: str
    fps: float
    num_frames: int
    keypoints: Keypoints | None = None
    frames: Callable[[range], Iterator[Frame]] | None = None
    sound: Path | None = None

    def select(self, options: PipelineOptions) -> range:
        """Frames that `start`, `stride` and `num_frames` choose.

        Raises:
            InputError: no frames there, or a frame rate that no video has.
        """
        if self.num_frames == 0:
            raise InputError(f"{self.name} holds no frames; use another motion.")
        first = round(options.start * self.fps)
        if first >= self.num_frames:
            raise InputError(
                f"start={options.start:g} lies behind the end of {self.name}, at {self.num_frames / self.fps:.2f} s."
            )
        if not MIN_FPS <= self.fps / options.stride <= MAX_FPS:
            raise InputError(
                f"{self.name} has {self.fps:g} frames per second, which with stride={options.stride} gives "
                f"{self.fps / options.stride:g}; a video may have {MIN_FPS:g} to {MAX_FPS:g}."
            )
        stop = self.num_frames
        if options.num_frames is not None:
            stop = min(stop, first + options.num_frames * options.stride)
        return range(first, stop, options.stride)

    def keypoints_of(self, wanted: range) -> Keypoints:
        """Keypoints of a range of frames, at its frame rate; only where the motion is given so."""
        assert self.keypoints is not None
        chosen = self.keypoints[wanted.start : wanted.stop : wanted.step]
        return dataclasses.replace(chosen, fps=self.fps / wanted.step)


def open_motion(motion: Motion, options: PipelineOptions) -> OpenedMotion:
    """Open a motion that is not drawn yet; see `MimicMotionPipeline.__call__` for what it may be.

    Raises:
        InputError: a file that is missing or unreadable, or something else that is no motion.
    """
    if isinstance(motion, Keypoints):
        check_distances(motion)
        return OpenedMotion("the motion", motion.fps, motion.num_frames, keypoints=motion)
    if isinstance(motion, str | os.PathLike):
        path = local_path(motion)
        return _open_keypoints(path, options) if is_keypoints(path) else _open_video(path, options)
    assert not isinstance(motion, DrawnPoses), "skeletons are used as they are"
    return _open_frames(to_frames(motion), options)


def drawn_skeletons(motion: Motion, options: PipelineOptions) -> DrawnFrames | None:
    """Skeletons that are drawn already, or None for any other motion.

    Arrays and PIL images may be frames of a video as well. Unless `motion_kind` says which, frames that are black for
    the most part are skeletons.
    """
    if isinstance(motion, DrawnPoses):
        return motion
    if isinstance(motion, str | os.PathLike | Keypoints) or options.motion_kind == "frames":
        return None
    frames = to_frames(motion)
    if options.motion_kind == "skeletons" or all((frame.max(-1) == 0).mean() >= _BLACK for frame in frames):
        return frames
    return None


def to_frames(motion: np.ndarray | Sequence[Image.Image]) -> UInt8[np.ndarray, "f height width 3"]:
    """Frames of a motion given as an array, or as a list of PIL images or arrays of one size.

    Raises:
        InputError: anything else.
    """
    if isinstance(motion, list | tuple):
        pictures = [rgb_pixels(frame) if isinstance(frame, Image.Image) else np.asarray(frame) for frame in motion]
        if len({picture.shape for picture in pictures}) > 1:
            raise InputError("the frames of the motion differ in size; make them all the same.")
        frames = np.array(pictures)
    else:
        frames = np.asarray(motion)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise InputError(
            "motion must be a path, Keypoints, a list of PIL images or a uint8 array [F, H, W, 3], not "
            f"{type(motion).__name__} {frames.dtype} {list(frames.shape)}."
        )
    return frames


def _open_keypoints(path: Path, options: PipelineOptions) -> OpenedMotion:
    try:
        keypoints = load_keypoints(path, fps=options.motion_fps, fallback_size=options.motion_size, follow=True)
    except SizeMissingError:
        raise InputError(
            f"{path} does not give the size of the video its points were found in; set motion_size=[width,height]."
        ) from None
    return OpenedMotion(str(path), keypoints.fps, keypoints.num_frames, keypoints=keypoints)


def _open_video(path: Path, options: PipelineOptions) -> OpenedMotion:
    video = open_video(path, fps=options.motion_fps, tolerate_truncation=options.tolerate_truncation)
    return OpenedMotion(
        str(path),
        video.fps,
        video.num_frames,
        frames=lambda wanted: video.frames(wanted.step, wanted.start, wanted.stop),
        sound=path if video.has_audio and find_sound(path) else None,
    )


def _open_frames(frames: UInt8[np.ndarray, "f height width 3"], options: PipelineOptions) -> OpenedMotion:
    fps = frame_rate(options)
    read = lambda wanted: iter(frames[wanted.start : wanted.stop : wanted.step])  # noqa: E731
    return OpenedMotion("the motion", fps, len(frames), frames=read)


def frame_rate(options: PipelineOptions) -> float:
    """Frame rate of frames that do not say it."""
    if options.motion_fps is not None:
        return options.motion_fps
    assume(f"frame rate of the motion: {ASSUMED_FPS:g} assumed; motion_fps sets another.")
    return ASSUMED_FPS
