"""Inputs of the model for a test sequence: the reference at the model's size, and one person's poses in it."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.protocols import Protocol
from mimicmotion_jax.evaluation.records import read_record, sha256_json, write_record
from mimicmotion_jax.evaluation.regions import Size, central_square
from mimicmotion_jax.evaluation.sequences import TestSequence
from mimicmotion_jax.pose import tracking
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.detect import Detector, detect_video
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.pose.select import fill_gaps, select_person
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import Crop, target_size


@dataclasses.dataclass(frozen=True)
class Task:
    """One video to generate."""

    sequence: TestSequence
    keypoints: Keypoints
    """Poses of one person in the model's picture, the reference's first."""
    size: Size
    """Height and width of the video, in pixels."""
    square: bool
    """True if the model gets central squares of the pictures."""

    @property
    def name(self) -> str:
        """Name of the sequence."""
        return self.sequence.name

    @property
    def num_frames(self) -> int:
        """Number of true frames in use, the reference included."""
        return self.keypoints.num_frames

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield true frames, cropped and resized for the model."""
        inputs = central_square(self.sequence.size)
        crop = Crop.plan(inputs.size if self.square else self.sequence.size, self.size)
        for frame in self.sequence.reader.frames(start=start, stop=self.num_frames if stop is None else stop):
            yield crop.pixels(inputs.frames([frame])[0] if self.square else frame)

    def withheld(self) -> "Task":
        """Return the same task without visible poses, which are drawn as black pictures."""
        dark = {name: np.zeros_like(getattr(self.keypoints, name)) for name in ARRAYS if name.endswith("_score")}
        return dataclasses.replace(self, keypoints=dataclasses.replace(self.keypoints, **dark))

    def sha256(self) -> str:
        """Hash everything that the model gets."""
        arrays = {name: getattr(self.keypoints, name).tobytes().hex() for name in ARRAYS}
        return sha256_json([self.sequence.sha256, arrays, self.size, self.square, self.num_frames])


class TaskMaker:
    """Makes tasks from sequences; the pose detector is loaded when it is first needed.

    Args:
        protocol: part of the picture and resolution of the videos.
        config: size, person and detector.
        multiple: required divisor of the videos' height and width, in pixels.
        folder: detected keypoints are kept there as NAME.npz.
        progress: show progress bars.

    Raises:
        InputError: the size in `config` does not fit the model.
    """

    def __init__(self, protocol: Protocol, config: EvaluateConfig, multiple: int, folder: Path, progress: bool = True):
        self._protocol, self._config, self._multiple = protocol, config, multiple
        self._folder, self._progress = folder, progress
        self._detector: Detector | None = None
        if config.width is not None and config.height is not None:
            self._check_size(config.width, config.height)

    def __call__(self, sequence: TestSequence) -> Task:
        """Load or detect the poses of a sequence and crop them to the model's size.

        Raises:
            InputError: the keypoints are unreadable, nobody is in the sequence, or its size does not fit the model.
        """
        config, square = self._config, self._protocol.inputs == "square"
        stop = None if config.num_frames is None else config.num_frames + 1
        inputs = central_square(sequence.size)
        source = inputs.size if square else sequence.size
        size = self._size(*source)
        keypoints = sequence.load_poses() or self._detect(sequence)
        keypoints = fill_gaps(select_person(keypoints, config.person), config.gaps)[:stop]
        if square:
            keypoints = inputs.keypoints(keypoints)
        return Task(sequence, crop_keypoints(keypoints, Crop.plan(source, size)), size, square)

    def _size(self, height: int, width: int) -> Size:
        if self._config.height is not None and self._config.width is not None:
            return self._config.height, self._config.width
        if self._protocol.resolution is not None:
            return target_size(height, width, self._protocol.resolution, "square" if height == width else "auto")
        self._check_size(width, height)
        return height, width

    def _check_size(self, width: int, height: int) -> None:
        multiple = self._multiple
        nearest = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        if nearest != [width, height]:
            raise InputError(
                f"videos of {width}x{height} cannot be generated, with this checkpoint both sides must be multiples of "
                f"{multiple}; say width={nearest[0]} height={nearest[1]}, for example."
            )

    @functools.cached_property
    def _detector_identity(self) -> str:
        return self._config.identity()

    def _detect(self, sequence: TestSequence) -> Keypoints:
        path = self._folder / f"{sequence.name}.npz"
        record, key = (
            path.with_suffix(".json"),
            sha256_json([sequence.sha256, self._detector_identity, tracking.VERSION]),
        )
        if path.is_file() and read_record(record, key):
            return load_keypoints(path)
        if self._detector is None:
            self._detector = self._config.load_detector()
        reader = sequence.reader
        found = detect_video(reader.frames(), self._detector, reader.fps, reader.num_frames, self._progress)
        self._folder.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        save_keypoints(found, path)
        write_record(record, key, {"frames": found.num_frames})
        return found
