"""Sources of videos: a source lists its items and opens one at a time; `VideoFolder` reads a folder of video files."""

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm

from mimicmotion_jax.pose.files import KEYPOINT_SUFFIXES, is_keypoints, keypoint_files, load_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.runtime.atomic_files import absolute_path, sha256_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import VIDEO_SUFFIXES, open_video


@dataclasses.dataclass(frozen=True)
class Item:
    """A video to prepare."""

    name: str
    """Unique in its source."""
    sha256: str
    """Hash of the video file."""
    content: str
    """Hash of the video and of the keypoints that come with it."""
    has_keypoints: bool
    problem: str | None = None
    """Reason why the file cannot be read at all; the other fields then mean nothing."""


@dataclasses.dataclass(frozen=True)
class OpenedVideo:
    """A video's frames on demand, and its keypoints if there are any."""

    fps: float
    num_frames: int
    frames: Callable[[], Iterator[UInt8[np.ndarray, "height width 3"]]]
    """Starts reading: all frames in order, RGB."""
    keypoints: Keypoints | None
    """Everybody in all frames; None if they are to be detected."""


class Source(Protocol):
    """A collection of videos; is sent to Beam's workers."""

    def items(self, progress: bool) -> list[Item]:
        """List all videos in a fixed order."""
        ...

    def open(self, item: Item) -> AbstractContextManager[OpenedVideo]:
        """Open one video; `InputError` says why it cannot be used."""
        ...


class VideoFolder:
    """The video files in a folder and the folders below it, local or gs://.

    Keypoints of `dance/a.mp4` are looked for at `dance/a.npz`, `dance/a.json` and `dance/a/` (OpenPose's one file per
    frame), first in `keypoints`, then beside the videos. `tolerate_truncation` reads damaged videos up to the damage.

    Raises:
        InputError: no such folder; when listing, no videos in it.
    """

    def __init__(
        self, videos: epath.PathLike, keypoints: epath.PathLike | None = None, tolerate_truncation: bool = False
    ):
        self._videos, self._tolerate_truncation = absolute_path(videos), tolerate_truncation
        self._keypoints = None if keypoints is None else absolute_path(keypoints)
        for folder in filter(None, (self._videos, self._keypoints)):
            if not folder.is_dir():
                raise InputError(f"there is no folder {folder}; check the path.")

    def items(self, progress: bool = True) -> list[Item]:
        """List the videos; reads every file, to recognise it by its content."""
        paths = sorted(path for path in _walk(self._videos) if path.suffix.lower() in VIDEO_SUFFIXES)
        if not paths:
            raise InputError(f"the folder {self._videos} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        return [self._item(path) for path in tqdm(paths, "hashing", unit="video", disable=not progress)]

    def _item(self, path: epath.Path) -> Item:
        name = path.relative_to(self._videos).as_posix()
        try:
            # A pipe would be waited for; epath takes it for a file.
            if not path.exists() or ("://" not in str(path) and not Path(path).is_file()):
                raise FileNotFoundError("not a file, or a link to a missing one")
            video, keypoints = sha256_file(path), self._find_keypoints(path)
            hashes = [] if keypoints is None else [sha256_file(file) for file in _keypoint_files(keypoints)]
        except OSError as error:
            return Item(name, "", "", has_keypoints=False, problem=f"it cannot be read ({error.strerror or error}).")
        tolerance = ["truncated"] * self._tolerate_truncation
        content = hashlib.sha256(" ".join([video, *hashes, *tolerance]).encode()).hexdigest()
        return Item(name, video, content, has_keypoints=keypoints is not None)

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[OpenedVideo]:
        """Open a video; a remote one is copied to this machine first, since FFmpeg reads local files only."""
        path = self._videos / item.name
        keypoints = self._find_keypoints(path)
        with _local_copy(path) as file:
            reader = open_video(file, tolerate_truncation=self._tolerate_truncation)
            num_frames = reader.num_frames
            if self._tolerate_truncation:  # how many come is known only at their end
                num_frames = sum(1 for _ in reader.frames())
            found = None if keypoints is None else _load_keypoints(keypoints, reader.width, reader.height, reader.fps)
            if keypoints and found and found.num_frames != num_frames:
                raise InputError(
                    f"{keypoints.name} holds the keypoints of {found.num_frames} frames, but the video has "
                    f"{num_frames}; make them anew or remove them."
                )
            yield OpenedVideo(reader.fps, num_frames, reader.frames, found)

    def _find_keypoints(self, video: epath.Path) -> epath.Path | None:
        stem = video.relative_to(self._videos).with_suffix("")
        for folder in filter(None, (self._keypoints, self._videos)):
            place = folder / stem
            for candidate in (place.with_name(place.name + suffix) for suffix in KEYPOINT_SUFFIXES):
                if candidate.exists():
                    return candidate
            if place.is_dir() and is_keypoints(place):
                return place
        return None


def _load_keypoints(path: epath.Path, width: int, height: int, fps: float) -> Keypoints:
    """Read keypoints that belong to a video of this size and rate, whatever picture they were recorded with."""
    found = load_keypoints(path, fps=fps, fallback_size=(width, height), follow=True)
    return dataclasses.replace(found, width=width, height=height, fps=fps)


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
    """Yield all files below a folder except hidden ones."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _keypoint_files(path: epath.Path) -> list[epath.Path]:
    return keypoint_files(path) if path.is_dir() else [path]


@contextlib.contextmanager
def _local_copy(path: epath.Path) -> Iterator[Path]:
    """Give the path of a local file, or of a temporary copy of a remote one."""
    if "://" not in str(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        path.copy(copy)
        yield copy
