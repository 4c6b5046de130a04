"""Preparation of one video, on Beam's workers; every finished piece is kept, so that a rerun goes on from there."""

import dataclasses
import functools
import itertools
import json
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mimicmotion_jax.data.codec import encode_video
from mimicmotion_jax.data.pieces import (
    FAILED,
    Encoding,
    Failure,
    LeftOut,
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
from mimicmotion_jax.data.stretches import UnfitError, find_stretches
from mimicmotion_jax.pose import tracking
from mimicmotion_jax.pose.detect import Detector, detect_video
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.options import DetectorOptions
from mimicmotion_jax.pose.select import choose_person
from mimicmotion_jax.runtime.build_cache import BuildCache, content_key
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.cuts import CutDetector
from mimicmotion_jax.video.decode import exact_rate
from mimicmotion_jax.video.image import resize

if TYPE_CHECKING:
    from mimicmotion_jax.data.encodings import Encoder

# Raised when files are read as other frames than before (orientation, rate, colours): their pieces are made again.
_READING = 2


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
        named = {
            field: tuple(dataclasses.replace(piece, name=item.name + piece.name) for piece in getattr(outcome, field))
            for field in ("parts", "left_out")
        }
        return dataclasses.replace(outcome, **named)

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
                    outcome = self._cut(item, video, key)
            except RunError:
                raise
            except InputError as error:
                flaw = error.flaw if isinstance(error, UnfitError) else "unreadable"
                outcome = Outcome(skipped=str(error), left_out=(LeftOut("", flaw, str(error)),))
            self._store_json(f"{key}.json", outcome)
        if self.encoding is not None:
            name = self.finished_name(item)
            parts = [
                self._encoded(part, self.encoding, name.replace(".json", f"-{n:04d}.npz"))
                for n, part in enumerate(outcome.parts)
            ]
            self._store_json(name, dataclasses.replace(outcome, parts=tuple(parts)))

    def _cut(self, item: Item, video: OpenedVideo, key: str) -> Outcome:
        """Cut a video into stretches and store those that are fit for training."""
        recipe, cuts = self.recipe, CutDetector()
        if video.num_frames < recipe.min_frames:
            raise UnfitError("short", f"it has {video.num_frames} frames, and min_frames is {recipe.min_frames}.")
        keypoints = self._detected(item, video) if video.keypoints is None else video.keypoints
        if video.keypoints is not None and not keypoints.hands_score.any():
            recipe = dataclasses.replace(recipe, min_hands=0.0)  # made without hands
        try:
            keypoints.person(choose_person(keypoints, recipe.person))
        except InputError as error:
            raise UnfitError("nobody", str(error)) from None
        for _ in cuts.watch(video.frames()):
            pass
        stretches = list(find_stretches(cuts, keypoints, recipe))
        names = [f"[{stretch.start}:{stretch.stop}]" if len(stretches) > 1 else "" for stretch, _ in stretches]
        parts, left_out, frames, position = [], [], video.frames(), 0
        for name, (stretch, found) in zip(names, stretches, strict=True):
            if isinstance(found, UnfitError):
                left_out.append(LeftOut(name, found.flaw, str(found)))
                continue
            chosen = itertools.islice(frames, stretch.start - position, stretch.stop - position)
            parts.append(self._part(item, chosen, found, name, f"{key}-{len(parts):04d}.npz"))
            position = stretch.stop
        if parts or len(left_out) > 1:
            skipped = None if parts else f"none of its {len(left_out)} stretches can be used; see left_out."
            return Outcome(tuple(parts), skipped, tuple(left_out))
        raise UnfitError(left_out[0].flaw, left_out[0].reason)

    def _part(self, item: Item, frames: Iterator[np.ndarray], keypoints: Keypoints, name: str, piece: str) -> Part:
        """Store the frames and keypoints of a stretch."""
        height, width = _stored_size(keypoints.height, keypoints.width, self.recipe.resolution)
        resized = (resize(frame, height, width) for frame in frames)
        stored = encode_video(resized, exact_rate(keypoints.fps), self.recipe.crf)
        keypoints = dataclasses.replace(keypoints, width=width, height=height)
        content = to_npz(PoseVideo("", item.sha256, stored, keypoints).to_example())
        self._store(piece, content)
        return Part(name, keypoints.num_frames, width, height, keypoints.fps, len(content), piece)

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
        return content_key(VERSION, item.content, recipe, tracking.VERSION, _READING)

    def _poses_name(self, item: Item) -> str:
        return f"{content_key(item.sha256, self.recipe.detector, tracking.VERSION, _READING)}.poses.npz"

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
