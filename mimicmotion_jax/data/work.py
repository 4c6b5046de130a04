"""Preparation of one video, on Beam's workers; every finished piece is kept, so that a rerun goes on from there."""

import dataclasses
import functools
import itertools
import json
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mimicmotion_jax.data.codec import encode_video
from mimicmotion_jax.data.pieces import (
    FAILED,
    Encoding,
    Failure,
    Outcome,
    Part,
    Recipe,
    RunError,
    explain_write_errors,
    read_encodings,
    read_failure,
    read_outcome,
    read_part,
    to_npz,
)
from mimicmotion_jax.data.record import VERSION, PoseVideo
from mimicmotion_jax.data.sources import Item, OpenedVideo, Source
from mimicmotion_jax.pose.detect import Detector, detect_video
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.options import DetectorOptions
from mimicmotion_jax.pose.select import select_person
from mimicmotion_jax.runtime.build_cache import BuildCache, content_key
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import exact_rate
from mimicmotion_jax.video.image import resize

if TYPE_CHECKING:
    from mimicmotion_jax.data.encodings import Encoder


@dataclasses.dataclass(frozen=True)
class Preparer:
    """Prepares items of a source."""

    source: Source
    recipe: Recipe
    detector: DetectorOptions
    encoding: Encoding | None
    cache: BuildCache

    def __call__(self, item: Item) -> None:
        """Make the pieces of an item that are missing. An error of the video goes into its `Outcome` or `Failure`.

        Raises:
            RunError: no detector, no such checkpoint, or the cache cannot be written.
        """
        try:
            self._prepare(item)
        except RunError:
            raise
        except Exception as error:  # whatever a broken file or a library does, the other videos go on
            reason = traceback.format_exception_only(error)[-1].strip()
            self._store_json(self._video_key(item) + FAILED, Failure(reason, traceback.format_exc()))

    def outcome(self, item: Item) -> Outcome | None:
        """Return the outcome of an item; None if it is not finished."""
        outcome = self.cache.load(self.finished_name(item), read_outcome)
        if outcome is None:
            return None
        parts = (dataclasses.replace(part, name=item.name + part.name) for part in outcome.parts)
        return dataclasses.replace(outcome, parts=tuple(parts))

    def failure(self, item: Item) -> Failure | None:
        """Return the unexpected error that an item met in this run."""
        return self.cache.load(self._video_key(item) + FAILED, read_failure)

    def finished_name(self, item: Item) -> str:
        """Return the name of the piece that is written last; it depends on all that determines the result."""
        key = self._video_key(item)
        return f"{content_key(key, self.encoding.info.model_dump()) if self.encoding else key}.json"

    def read(self, part: Part) -> dict[str, Any]:
        """Return the example of a part, as `record.features` lists it.

        Raises:
            RunError: a damaged piece.
        """
        example = self.cache.load(part.piece, read_part)
        encodings = self.cache.load(part.encodings, read_encodings) if part.encodings else {}
        if example is None or encodings is None:
            raise RunError(f"a piece of {part.name} in {self.cache.folder} is damaged; run the same command again.")
        return example | encodings | {"name": part.name}

    def is_whole(self, outcome: Outcome) -> bool:
        """Return True if all pieces of an outcome can be read."""
        try:
            return all(self.read(part) for part in outcome.parts)
        except RunError:
            return False

    def _prepare(self, item: Item) -> None:
        key = self._video_key(item)
        outcome = self.cache.load(f"{key}.json", read_outcome)
        if outcome is None or not self.is_whole(outcome):
            try:
                with self.source.open(item) as video:
                    outcome = Outcome(tuple(self._parts(item, video, key)))
            except RunError:
                raise
            except InputError as error:
                outcome = Outcome(skipped=str(error))
            self._store_json(f"{key}.json", outcome)
        if self.encoding is not None:
            name = self.finished_name(item)
            parts = [
                self._encoded(part, self.encoding, name.replace(".json", f"-{n:04d}.npz"))
                for n, part in enumerate(outcome.parts)
            ]
            self._store_json(name, dataclasses.replace(outcome, parts=tuple(parts)))

    def _parts(self, item: Item, video: OpenedVideo, key: str) -> Iterator[Part]:
        recipe, fps = self.recipe, video.fps
        if video.num_frames < recipe.min_frames:
            raise InputError(f"it has {video.num_frames} frames, and min_frames is {recipe.min_frames}.")
        keypoints = self._detected(item, video) if video.keypoints is None else video.keypoints
        keypoints = select_person(keypoints, recipe.person)
        height, width = _stored_size(keypoints.height, keypoints.width, recipe.resolution)
        # Equal parts, so that the last one is no shorter than the others.
        count = -(-video.num_frames // max(recipe.min_frames, int(recipe.max_seconds * fps)))
        bounds = [video.num_frames * part // count for part in range(count + 1)]
        frames = (resize(frame, height, width) for frame in video.frames())
        for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
            stored = encode_video(itertools.islice(frames, stop - start), exact_rate(fps), recipe.crf)
            stretch = dataclasses.replace(keypoints[start:stop], width=width, height=height)
            content = to_npz(PoseVideo("", item.sha256, stored, stretch).to_example())
            piece = f"{key}-{number:04d}.npz"
            self._store(piece, content)
            name = f"[{start}:{stop}]" if count > 1 else ""
            yield Part(name, stop - start, width, height, fps, len(content), piece)

    def _detected(self, item: Item, video: OpenedVideo) -> Keypoints:
        name = self._poses_name(item)
        found = self.cache.load(name, load_keypoints)
        if found is None or found.num_frames != video.num_frames:
            try:
                detector = _load_detector(self.detector, self.recipe.detector)
            except InputError as error:
                raise RunError(str(error)) from None
            found = detect_video(video.frames(), detector, video.fps, video.num_frames, progress=False)
            with explain_write_errors(self.cache.folder):
                save_keypoints(found, self.cache.path(name))
        return found

    def _encoded(self, part: Part, encoding: Encoding, piece: str) -> Part:
        encodings = self.cache.load(piece, read_encodings)
        if encodings is None:
            try:
                encoder = _load_encoder(encoding.directory, encoding.batch_size)
            except InputError as error:
                raise RunError(str(error)) from None
            record, info = PoseVideo.from_example(self.read(part)), encoding.info
            encodings = encoder(record, info.width, info.height)._asdict()
            self._store(piece, to_npz(encodings))
        size = sum(array.nbytes for array in encodings.values())
        return dataclasses.replace(part, encodings=piece, num_bytes=part.num_bytes + size)

    def _video_key(self, item: Item) -> str:
        recipe = dataclasses.asdict(self.recipe) | ({"detector": None} if item.has_keypoints else {})
        return content_key(VERSION, item.content, recipe)

    def _poses_name(self, item: Item) -> str:
        return f"{content_key(item.sha256, self.recipe.detector)}.poses.npz"

    def _store_json(self, name: str, content: Outcome | Failure) -> None:
        self._store(name, json.dumps(dataclasses.asdict(content)).encode())

    def _store(self, name: str, content: bytes) -> None:
        with explain_write_errors(self.cache.folder):
            self.cache.store(name, content)


@functools.cache
def _load_detector(options: DetectorOptions, identity: str) -> Detector:
    if options.identity() != identity:  # on another machine than the one that chose it
        raise RunError(f"this worker detects poses with {options.identity()}, not with {identity}; set detector=.")
    return options.load_detector()


@functools.cache
def _load_encoder(directory: str, batch_size: int) -> "Encoder":
    from mimicmotion_jax.data.encodings import Encoder

    return Encoder.load(directory, batch_size)


def _stored_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Never larger than the video; sides are even, since colours are stored at half the resolution."""
    scale = min(1.0, resolution / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)
