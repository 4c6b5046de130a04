"""What determines the files of a prepared video: options, detector, checkpoint; a file is named by a hash of them."""

import dataclasses
import functools
import hashlib
import json
from typing import Any

from mimicmotion_jax.data.dataset import EncodingInfo
from mimicmotion_jax.data.record import VERSION
from mimicmotion_jax.data.sources import Item
from mimicmotion_jax.pose.detect import Detector
from mimicmotion_jax.pose.options import DetectorOptions, PersonChoice


@functools.cache
def detector(options: DetectorOptions) -> Detector:
    """The detector, one per process.

    Raises:
        InputError: as `load_detector`.
    """
    return options.load_detector()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What determines a record, besides the video."""

    resolution: int
    crf: int
    max_seconds: float
    min_frames: int
    person: PersonChoice
    detector: DetectorOptions

    def poses_key(self, item: Item) -> str:
        """Names the file of detected keypoints."""
        return _hash(item.sha256, dataclasses.asdict(self.detector))

    def key(self, item: Item) -> str:
        """Names the prepared video."""
        return _hash(VERSION, item.content, dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Encodings that are wanted."""

    directory: str
    info: EncodingInfo
    batch_size: int

    def key(self, video_key: str) -> str:
        """Names the encodings of a prepared video."""
        return _hash(video_key, self.info.model_dump())


@dataclasses.dataclass(frozen=True)
class Part:
    """A prepared stretch of a video: refers to its files."""

    name: str
    num_frames: int
    width: int
    height: int
    fps: float
    num_bytes: int
    path: str
    """Of its file, in `Workshop.folder` until the part is looked up."""
    encodings: str | None = None


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
