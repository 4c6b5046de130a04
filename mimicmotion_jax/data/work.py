"""The expensive part of the preparation, video by video, each step kept in a file so that a rerun goes on from there.

    WORK/POSES.npz        detected keypoints of a video: depends on its content and the detector
    WORK/KEY.json         a prepared video's list of parts, or why it was skipped
    WORK/KEY-0000.npz     a part: frames as H.264 and the keypoints of one person; depends on `Recipe` besides
    WORK/CODE-0000.npz    a part's encodings; depends on the checkpoint and the size besides

A name is a hash of all that determines the file's content; files appear under it when they are complete.
"""

import dataclasses
import functools
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydantic
from etils import epath

from mimicmotion_jax.data.codec import encode_video
from mimicmotion_jax.data.recipe import Encoding, Part, Recipe, detector
from mimicmotion_jax.data.record import ENCODINGS, PoseVideo
from mimicmotion_jax.data.sources import Footage, Item, Source
from mimicmotion_jax.pose.detect import detect_video
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.select import select_person
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import exact_rate
from mimicmotion_jax.video.image import resize


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Prepares items of a source into a folder; runs on Beam's workers."""

    source: Source
    recipe: Recipe
    encoding: Encoding | None
    folder: str
    """Local or gs://."""

    def is_done(self, item: Item) -> bool:
        """Whether nothing is left to do for it."""
        return self._marker(item).exists()

    def needs_detector(self, item: Item) -> bool:
        """Whether its poses are still to be detected."""
        files = [f"{self.recipe.key(item)}.json", f"{self.recipe.poses_key(item)}.poses.npz"]
        return not item.has_keypoints and not any((epath.Path(self.folder) / file).exists() for file in files)

    def prepare(self, item: Item) -> None:
        """Make the files of one item; those that are there are kept.

        Raises:
            InputError: nothing to detect with, no such checkpoint, or a damaged file of an earlier run. What is wrong
                with the video is written down.
        """
        root, key = epath.Path(self.folder), self.recipe.key(item)
        listing = root / f"{key}.json"
        if not listing.exists():
            try:
                with self.source.open(item) as footage:
                    parts = [dataclasses.asdict(part) for part in self._parts(item, footage, root, key)]
                content = {"parts": parts}
            except _Unprepared as error:
                raise InputError(str(error)) from None
            except InputError as error:
                content = {"skipped": str(error)}
            write_file(listing, json.dumps(content).encode())
        if self.encoding is not None:
            for number, part in enumerate(_read_listing(listing).parts):
                path = self._encodings_path(item, number)
                if not path.exists():
                    write_file(path, _npz(self._encode(str(root / part.path))))
            write_file(self._marker(item), b"{}")

    def result(self, item: Item) -> list[Part] | str:
        """The parts of a prepared item, or why it was skipped.

        Raises:
            InputError: a damaged file.
        """
        root = epath.Path(self.folder)
        listing = _read_listing(root / f"{self.recipe.key(item)}.json")
        if listing.skipped is not None:
            return listing.skipped
        parts = []
        for number, part in enumerate(listing.parts):
            part = dataclasses.replace(part, name=item.name + part.name, path=str(root / part.path))
            if self.encoding is not None:
                path = self._encodings_path(item, number)
                size = part.num_bytes + path.stat().length
                part = dataclasses.replace(part, encodings=str(path), num_bytes=size)
            parts.append(part)
        return parts

    def _parts(self, item: Item, footage: Footage, root: epath.Path, key: str) -> Iterator[Part]:
        recipe, fps = self.recipe, footage.fps
        if footage.num_frames < recipe.min_frames:
            raise InputError(f"it has {footage.num_frames} frames, and min_frames is {recipe.min_frames}.")
        keypoints = footage.keypoints
        if keypoints is None:
            keypoints = self._detected(footage, root / f"{recipe.poses_key(item)}.poses.npz")
        keypoints = select_person(keypoints, recipe.person)
        # Equal parts, so that the last one is no shorter than the others.
        count = -(-footage.num_frames // max(recipe.min_frames, int(recipe.max_seconds * fps)))
        bounds = [footage.num_frames * part // count for part in range(count + 1)]
        for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
            height, width = _stored_size(keypoints.height, keypoints.width, recipe.resolution)
            frames = (resize(frame, height, width) for frame in footage.frames(start, stop))
            video = encode_video(frames, exact_rate(fps), recipe.crf)
            stretch = dataclasses.replace(keypoints[start:stop], width=width, height=height)
            path = root / f"{key}-{number:04d}.npz"
            write_file(path, _npz(PoseVideo("", item.sha256, video, stretch).to_example()))
            name = f"[{start}:{stop}]" if count > 1 else ""
            yield Part(name, stop - start, width, height, fps, path.stat().length, path.name)

    def _detected(self, footage: Footage, cache: epath.Path) -> Keypoints:
        if cache.exists():
            return load_keypoints(cache)
        try:
            loaded = detector(self.recipe.detector)
        except InputError as error:
            raise _Unprepared(str(error)) from None
        frames = footage.frames(0, footage.num_frames)
        found = detect_video(frames, loaded, footage.fps, footage.num_frames, progress=False)
        save_keypoints(found, cache)
        return found

    def _encode(self, part: str) -> dict[str, np.ndarray]:
        record = PoseVideo.from_example(_load(part))
        encoder = _encoder(self.encoding.directory, self.encoding.batch_size)
        return encoder(record, self.encoding.info.width, self.encoding.info.height)._asdict()

    def _encodings_path(self, item: Item, number: int) -> epath.Path:
        return epath.Path(self.folder) / f"{self.encoding.key(self.recipe.key(item))}-{number:04d}.npz"

    def _marker(self, item: Item) -> epath.Path:
        """The file that is written last."""
        key = self.recipe.key(item)
        return epath.Path(self.folder) / f"{self.encoding.key(key) if self.encoding else key}.json"


def read_part(part: Part) -> dict[str, Any]:
    """The example of a prepared part, as `record.features` lists it."""
    example = _load(part.path) | {"name": part.name}
    if part.encodings is not None:
        encoded = _load(part.encodings)
        example |= {name: encoded[name] for name in ENCODINGS}
    return example


class _Unprepared(ValueError):
    """Something is missing here; the video is not to blame."""


@dataclasses.dataclass(frozen=True)
class _Listing:
    """What came of a video."""

    parts: tuple[Part, ...] = ()
    skipped: str | None = None


def _read_listing(path: epath.Path) -> _Listing:
    try:
        return pydantic.TypeAdapter(_Listing).validate_json(path.read_bytes())
    except pydantic.ValidationError:
        raise InputError(f"{path} is damaged; remove it and run this again.") from None


@functools.cache
def _encoder(directory: str, batch_size: int) -> Any:
    from mimicmotion_jax.data.encodings import Encoder

    return Encoder.load(directory, batch_size)


def _stored_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Never larger than the video; even sides, for the colours' half resolution."""
    scale = min(1.0, resolution / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _load(path: str) -> dict[str, Any]:
    with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as file:
        return {name: array if array.ndim else array.item() for name, array in file.items()}
