"""One video to make: as it is asked for, and ready for the device."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of this job alone, by their names in `GenerateConfig`; they override those of the whole list."""

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
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The job's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, height and width; jobs of equal shape and options can share a batch."""
        return (self.keypoints.num_frames, *self.image.shape[:2])
