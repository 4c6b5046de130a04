"""Where videos come from: a source lists its items and opens one at a time; a folder of video files is a source."""

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

from mimicmotion_jax.pose.files import load_keypoints
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
    """Of the video."""
    content: str
    """Changes whenever the video or the keypoints that come with it do."""
    has_keypoints: bool


@dataclasses.dataclass(frozen=True)
class Footage:
    """An opened item."""

    fps: float
    num_frames: int
    frames: Callable[[int, int], Iterator[UInt8[np.ndarray, "height width 3"]]]
    """Frames `start` to `stop`, as often as is asked for."""
    keypoints: Keypoints | None
    """Of everybody in all frames; None: they are to be detected."""


class Source(Protocol):
    """A collection of videos; is sent to Beam's workers."""

    def items(self, progress: bool) -> list[Item]:
        """All of it, in a fixed order."""
        ...

    def open(self, item: Item) -> AbstractContextManager[Footage]:
        """One video; `InputError` says why it cannot be used."""
        ...


class VideoFolder:
    """The video files in a folder and the folders below it, local or gs://.

    Keypoints of `dance/a.mp4` are looked for at `dance/a.npz`, `dance/a.json` and `dance/a/` (OpenPose's one file per
    frame), first in `keypoints`, then beside the videos.

    Raises:
        InputError: no such folder; when listing, no videos in it.
    """

    def __init__(self, videos: epath.PathLike, keypoints: epath.PathLike | None = None):
        self._videos = absolute_path(videos)
        self._keypoints = None if keypoints is None else absolute_path(keypoints)
        for folder in filter(None, (self._videos, self._keypoints)):
            if not folder.is_dir():
                raise InputError(f"there is no folder {folder}; check the path.")

    def items(self, progress: bool = True) -> list[Item]:
        """See `Source`; reads every file, to know it again by its content."""
        paths = sorted(path for path in _walk(self._videos) if path.suffix.lower() in VIDEO_SUFFIXES)
        if not paths:
            raise InputError(f"the folder {self._videos} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        items = []
        for path in tqdm(paths, "looking", unit="video", disable=not progress):
            video, keypoints = sha256_file(path), self._find_keypoints(path)
            files = [] if keypoints is None else _files(keypoints)
            content = hashlib.sha256(" ".join([video, *map(sha256_file, files)]).encode()).hexdigest()
            name = path.relative_to(self._videos).as_posix()
            items.append(Item(name, video, content, has_keypoints=keypoints is not None))
        return items

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[Footage]:
        """See `Source`."""
        path = self._videos / item.name
        keypoints = self._find_keypoints(path)
        with _local(path) as file:
            reader = open_video(file)
            found = None if keypoints is None else _load_keypoints(keypoints, reader.width, reader.height, reader.fps)
            if found is not None and found.num_frames != reader.num_frames:
                raise InputError(
                    f"{keypoints.name} holds the keypoints of {found.num_frames} frames, but the video has "
                    f"{reader.num_frames}; make them anew or remove them."
                )
            yield Footage(reader.fps, reader.num_frames, lambda a, b: reader.frames(start=a, stop=b), found)

    def _find_keypoints(self, video: epath.Path) -> epath.Path | None:
        stem = video.relative_to(self._videos).with_suffix("")
        for folder in filter(None, (self._keypoints, self._videos)):
            place = folder / stem
            for candidate in (place.with_name(f"{place.name}.npz"), place.with_name(f"{place.name}.json")):
                if candidate.exists():
                    return candidate
            if place.is_dir() and any(place.glob("*_keypoints.json")):
                return place
        return None


def _load_keypoints(path: epath.Path, width: int, height: int, fps: float) -> Keypoints:
    try:
        found = load_keypoints(path, fps=fps)
    except InputError:  # OpenPose's own files are in pixels and do not say of what
        found = load_keypoints(path, width, height, fps)
    return dataclasses.replace(found, width=width, height=height, fps=fps)


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder but for hidden ones."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _files(path: epath.Path) -> list[epath.Path]:
    return sorted(path.glob("*_keypoints.json")) if path.is_dir() else [path]


@contextlib.contextmanager
def _local(path: epath.Path) -> Iterator[Path]:
    """The file itself, or a copy of a remote one: FFmpeg reads local files only."""
    if "://" not in str(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        path.copy(copy)
        yield copy
