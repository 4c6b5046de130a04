"""One test sequence with the videos compared with it: which frames, which region, at which size."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from mimicmotion_jax.evaluation.protocols import Protocol
from mimicmotion_jax.evaluation.regions import Region, compared_regions
from mimicmotion_jax.evaluation.sequences import TestSequence, sha256_video
from mimicmotion_jax.pose.hands import hand_mask
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.video.decode import VideoReader

TRUE, GENERATED, REPEAT, WITHHELD, RECONSTRUCTION = "true", "generated", "repeat", "withheld", "reconstruction"

LABELS = {
    GENERATED: "generated",
    REPEAT: "reference repeated",
    WITHHELD: "poses withheld",
    RECONSTRUCTION: "VAE alone",
}
"""Columns of the results and their labels: generated videos, two baselines and the upper bound."""


@dataclasses.dataclass(frozen=True)
class Video:
    """A video to compare with the true one."""

    reader: VideoReader
    start: int
    """Index of the frame that corresponds to the true frame 1."""
    sha256: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sequence and its videos by column."""

    sequence: TestSequence
    videos: Mapping[str, Video]
    num_frames: int
    """Number of compared frames."""
    true_region: Region
    """Compared region of the true frames."""
    region: Region
    """Compared region of the frames of `videos`."""
    poses: Keypoints | None
    """Poses given to the model, in the compared region, the reference's first; shown on the page."""
    seams: tuple[int, ...]
    """Frames at which the generated video's windows change; 0 is the true frame 1."""
    foreground_threshold: int

    @property
    def name(self) -> str:
        """Name of the sequence."""
        return self.sequence.name

    @property
    def columns(self) -> list[str]:
        """Columns that are compared with the true frames, in the order of `LABELS`."""
        return [column for column in LABELS if column == REPEAT or column in self.videos]

    @property
    def lengths(self) -> dict[str, int]:
        """Numbers of true, generated and compared frames, without the reference."""
        generated = self.videos[GENERATED]
        return {
            "true": self.sequence.reader.num_frames - 1,
            "generated": generated.reader.num_frames - generated.start,
            "compared": self.num_frames,
        }

    def frames(self, column: str) -> UInt8[np.ndarray, "frames height width 3"]:
        """Read the compared frames of a column, or the true ones (`TRUE`)."""
        if column == REPEAT:
            return np.repeat(self.reference()[None], self.num_frames, axis=0)
        if column == TRUE:
            return self.true_region.frames(self.sequence.reader.frames(start=1, stop=1 + self.num_frames))
        video = self.videos[column]
        return self.region.frames(video.reader.frames(start=video.start, stop=video.start + self.num_frames))

    def reference(self) -> UInt8[np.ndarray, "height width 3"]:
        """Read the true frame 0."""
        return self.true_region.frames(self.sequence.reader.frames(stop=1))[0]

    def background(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Read the picture without the person; None if it is not known."""
        background = self.sequence.load_background()
        return None if background is None else self.true_region.frames([background])[0]

    def hands(self) -> Bool[np.ndarray, "frames height width"] | None:
        """Return a mask of the hands; None if the sequence has no keypoints of its own."""
        keypoints = self.sequence.load_poses()
        if keypoints is None:
            return None
        return hand_mask(self.true_region.keypoints(keypoints[1 : 1 + self.num_frames]), *self.true_region.size)

    def identity(self, column: str) -> list[Any]:
        """Return everything that the frames of a column depend on, as JSON values."""
        true = [self.sequence.sha256, dataclasses.asdict(self.true_region), self.num_frames]
        if column in (TRUE, REPEAT):
            return [column == REPEAT, *true]
        video = self.videos[column]
        return [video.sha256, video.start, dataclasses.asdict(self.region), self.num_frames]

    def score_inputs(self) -> list[Any]:
        """Return what scores depend on besides the frames, as JSON values."""
        return [list(self.seams), self.foreground_threshold, *self.files_sha256.values()]

    @functools.cached_property
    def files_sha256(self) -> dict[str, str | None]:
        """Hashes of the sequence's own poses and background; None for missing files."""
        files = {"poses": self.sequence.poses, "background": self.sequence.foreground}
        return {name: path and sha256_file(path) for name, path in files.items()}


def compare(
    sequence: TestSequence,
    readers: Mapping[str, VideoReader],
    protocol: Protocol,
    poses: Keypoints | None = None,
    seams: tuple[int, ...] = (),
    max_frames: int | None = None,
) -> Comparison:
    """Match videos with a sequence, by the protocol's rules (see `protocols`).

    Args:
        sequence: the true frames.
        readers: videos of one size by column, `GENERATED` among them.
        protocol: region and size of the comparison.
        poses: poses in the generated frames, the reference's first; None takes the sequence's own.
        seams: see `Comparison`.
        max_frames: largest number of compared frames.
    """
    true = sequence.reader
    videos = {}
    for column, reader in readers.items():
        start = int(reader.num_frames == true.num_frames)
        videos[column] = Video(reader, start, sha256_video(reader))
    lengths = [true.num_frames - 1, *(video.reader.num_frames - video.start for video in videos.values())]
    if max_frames is not None:
        lengths.append(max_frames)
    generated = readers[GENERATED]
    true_region, region = compared_regions(protocol, sequence.size, (generated.height, generated.width))
    if poses is not None:
        shown = region.keypoints(poses)
    else:
        own = sequence.load_poses()
        shown = None if own is None else true_region.keypoints(own)
    num_frames = min(lengths)
    return Comparison(
        sequence,
        videos,
        num_frames,
        true_region,
        region,
        shown,
        tuple(seam for seam in seams if seam < num_frames),
        protocol.foreground_threshold,
    )
