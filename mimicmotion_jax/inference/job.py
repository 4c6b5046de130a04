"""One video to make: as it is asked for, and ready for the device."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from etils import epath
from jaxtyping import UInt8

from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.pose.align import AlignmentReport
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.select import PoseReport
from mimicmotion_jax.provenance.credentials import Origin


@dataclasses.dataclass(frozen=True)
class Job:
    """A line of a job list; its inputs are local or at gs://."""

    image: Path | epath.Path
    motion: Path | epath.Path
    output: Path | epath.Path
    image_pose: Path | epath.Path | None = None  # of the reference image, whole or cropped; None detects it
    seed: int | None = None  # None: the options'
    motion_size: tuple[int, int] | None = None  # width, height, likewise
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of this job alone, by their names in `GenerateConfig`; they override those of the whole list."""

    @property
    def inputs(self) -> tuple[Path | epath.Path, ...]:
        """Files and folders that are read."""
        return (self.image, self.motion, *([self.image_pose] if self.image_pose is not None else []))


class DrawnFrames(Protocol):
    """Drawn skeletons uint8 [F, H, W, 3]: an array, or a sequence that draws a slice when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """F, H, W, 3."""
        ...

    def __getitem__(self, frames: slice, /) -> UInt8[np.ndarray, "n height width 3"]: ...


@dataclasses.dataclass(frozen=True)
class Report:
    """Findings about a motion before it is generated; `str(report)` has a line for each.

    Attributes:
        pose: what was detected in the motion; None for skeletons that were drawn already.
        alignment: how the motion was fitted to the reference; None likewise.
        notes: assumptions and warnings, a sentence each.
    """

    pose: PoseReport | None = None
    alignment: AlignmentReport | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = [part.summary() for part in (self.pose, self.alignment) if part is not None]
        return "\n".join([*found, *self.notes])


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Inputs of one video, ready for the device.

    Attributes:
        image: reference image, cropped and resized.
        poses: drawn skeletons at the size of `image`; the reference's own pose first.
        keypoints: of the motion in the reference's picture, without the reference's own; None for drawn skeletons.
        fps: frame rate of the result.
        options: all options; those of a batch are equal but for `seed`.
        reference: keypoints of the person in `image`, where `keypoints` are there.
        report: what detection and alignment said.
        sound: file whose sound goes into the result.
        sound_start: second of `sound` at which the result begins.
        output: where the result goes; None where the caller decides later.
        origin: hashes of checkpoint, image and motion.
    """

    image: UInt8[np.ndarray, "height width 3"]
    poses: DrawnFrames
    keypoints: Keypoints | None
    fps: float
    options: PipelineOptions
    reference: Keypoints | None = None
    report: Report = Report()
    sound: Path | None = None
    sound_start: float = 0.0
    output: Path | epath.Path | None = None
    origin: Origin = dataclasses.field(default_factory=Origin)

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames (the reference's included), height, width; jobs of equal shape and options can share a batch."""
        return tuple(self.poses.shape[:3])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Options that decide the frames, as plain values."""
        return values_of(PipelineOptions, self.options)
