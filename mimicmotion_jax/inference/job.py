"""One video to make: as it is asked for, and ready for the device."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.pose.keypoints import Keypoints


@dataclasses.dataclass(frozen=True)
class Job:
    """One video to make."""

    image: Path
    motion: Path
    output: Path
    image_pose: Path | None = None  # keypoints of the reference picture, whole or cropped; None detects them
    seed: int | None = None  # None: the options'
    motion_size: tuple[int, int] | None = None  # width, height, likewise

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files and folders that are read."""
        return (self.image, self.motion, *([self.image_pose] if self.image_pose is not None else []))


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job ready for the device: the picture, the motion in that picture, and where the result goes."""

    image: UInt8[np.ndarray, "height width 3"]
    keypoints: Keypoints  # the reference's pose first, then the aligned motion
    output: Path
    seed: int
    sound: Path | None = None
    sound_start: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Jobs of equal shape can share a batch: frames, height, width."""
        return (self.keypoints.num_frames, *self.image.shape[:2])
