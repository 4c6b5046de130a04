"""One sequence beside everything that is compared with it: which frames, which part of them, at which size."""

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
"""Columns of the results, and what they are called; the last three are baselines and the ceiling."""


@dataclasses.dataclass(frozen=True)
class Video:
    """A video that is compared with the true one."""

    reader: VideoReader
    start: int
    """Number of its frame that corresponds to the true frame 1."""
    sha256: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sequence and its videos by column."""

    sequence: TestSequence
    true_sha256: str
    videos: Mapping[str, Video]
    num_frames: int
    """Frames that are compared."""
    true_region: Region
    region: Region
    """Of all the others."""
    poses: Keypoints | None
    """As they were given to the model, in the compared region, the reference's first; to look at."""
    seams: tuple[int, ...]
    """Frames before which the windows of the generated video change, from 0 for true frame 1."""
    foreground_threshold: int

    @property
    def columns(self) -> list[str]:
        """What is compared with the truth, in the order of `LABELS`."""
        return [column for column in LABELS if column == REPEAT or column in self.videos]

    @property
    def lengths(self) -> dict[str, int]:
        """Frames of the true video, of the generated one, and those compared, all without the reference."""
        generated = self.videos[GENERATED]
        return {
            "true": self.sequence.reader.num_frames - 1,
            "generated": generated.reader.num_frames - generated.start,
            "compared": self.num_frames,
        }

    def frames(self, column: str) -> UInt8[np.ndarray, "frames height width 3"]:
        """The frames that are compared, of a column or the true ones."""
        if column == REPEAT:
            return np.repeat(self.reference()[None], self.num_frames, axis=0)
        if column == TRUE:
            return self.true_region.frames(self.sequence.reader.frames(start=1, stop=1 + self.num_frames))
        video = self.videos[column]
        return self.region.frames(video.reader.frames(start=video.start, stop=video.start + self.num_frames))

    def reference(self) -> UInt8[np.ndarray, "height width 3"]:
        """The true frame 0."""
        return self.true_region.frames(self.sequence.reader.frames(stop=1))[0]

    def background(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """What is seen where nobody stands, if that is known."""
        whole = self.sequence.load_background()
        return None if whole is None else self.true_region.frames([whole])[0]

    def hands(self) -> Bool[np.ndarray, "frames height width"] | None:
        """Where hands are, if keypoints came with the sequence."""
        keypoints = self.sequence.load_poses()
        if keypoints is None:
            return None
        return hand_mask(self.true_region.keypoints(keypoints[1 : 1 + self.num_frames]), *self.true_region.size)

    def identity(self, column: str) -> list[Any]:
        """All that the frames of a column depend on, for JSON."""
        true = [self.true_sha256, dataclasses.asdict(self.true_region), self.num_frames]
        if column in (TRUE, REPEAT):
            return [column == REPEAT, *true]
        video = self.videos[column]
        return [video.sha256, video.start, dataclasses.asdict(self.region), self.num_frames]

    def known(self) -> list[Any]:
        """All else that scores depend on, for JSON."""
        return [list(self.seams), self.foreground_threshold, *self.files_sha256.values()]

    @functools.cached_property
    def files_sha256(self) -> dict[str, str | None]:
        """Of the files that came with the sequence, by what is in them; None for those that did not come."""
        files = {"poses": self.sequence.poses, "background": self.sequence.foreground}
        return {name: path and sha256_file(path) for name, path in files.items()}


def compare(
    sequence: TestSequence,
    true_sha256: str,
    readers: Mapping[str, VideoReader],
    protocol: Protocol,
    poses: Keypoints | None = None,
    seams: tuple[int, ...] = (),
    max_frames: int | None = None,
) -> Comparison:
    """Put videos beside a sequence, by the protocol's rules (see `protocols`).

    Args:
        sequence: with the true frames.
        true_sha256: of these.
        readers: videos of one size by column, `GENERATED` among them.
        protocol: says what is compared.
        poses: of the generated frames' picture, the reference's first; None takes those that came with the sequence.
        seams: see `Comparison`.
        max_frames: compare no more than these.
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
        given = sequence.load_poses()
        shown = None if given is None else true_region.keypoints(given)
    num_frames = min(lengths)
    return Comparison(
        sequence,
        true_sha256,
        videos,
        num_frames,
        true_region,
        region,
        shown,
        tuple(seam for seam in seams if seam < num_frames),
        protocol.foreground_threshold,
    )
