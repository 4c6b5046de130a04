"""OpenPose's JSON: people as flat lists of x, y, confidence in pixels; ours is the same for all frames in one file."""

from typing import Annotated

import numpy as np
import pydantic
from etils import epath
from pydantic import Field

from mimicmotion_jax.pose.keypoints import MAX_FPS, MAX_SIDE, MIN_FPS, Keypoints
from mimicmotion_jax.pose.layout import FACE, HANDS, NUM_POINTS
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.frame_rate import assume_rate

FALLBACK_FPS = 30.0
"""Frames per second of a file that does not record them."""

# BODY_25 has a middle hip at 8 and six foot points from 19 on.
_BODY_FROM_BODY_25 = [*range(8), *range(9, 19)]


class SizeMissingError(InputError):
    """Coordinates are in pixels, and neither the file nor the caller gives the picture's size."""


class _Person(pydantic.BaseModel):
    """One person of OpenPose's JSON: flat lists of x, y, confidence, empty for a part that was not looked for."""

    pose_keypoints_2d: list[float] = []
    face_keypoints_2d: list[float] = []
    hand_left_keypoints_2d: list[float] = []
    hand_right_keypoints_2d: list[float] = []


class _Frame(pydantic.BaseModel):
    people: list[_Person]


class JsonFile(pydantic.BaseModel):
    """One of OpenPose's files (`people` of one frame) or one of ours (`frames` and the picture's size and rate)."""

    version: float = 1
    width: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    height: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    fps: Annotated[float, Field(ge=MIN_FPS, le=MAX_FPS)] | None = None
    frames: list[_Frame] | None = None
    people: list[_Person] | None = None

    def all_frames(self) -> list[_Frame]:
        """Return the frames of either kind of file."""
        return self.frames if self.frames is not None else [_Frame(people=self.people or [])]


def to_json(keypoints: Keypoints) -> bytes:
    """Write all frames as one of our files."""
    size = np.array([keypoints.width, keypoints.height])

    def flat(points: np.ndarray, scores: np.ndarray) -> list[float]:
        triples = np.concatenate([points * size, scores[:, None]], axis=1) * (scores[:, None] > 0)
        return np.round(triples, 4).ravel().tolist()

    def person(k: Keypoints, f: int, p: int) -> _Person:
        return _Person.model_construct(
            pose_keypoints_2d=flat(k.body[f, p], k.body_score[f, p]),
            face_keypoints_2d=flat(k.faces[f, p], k.faces_score[f, p]),
            hand_left_keypoints_2d=flat(k.hands[f, p, 0], k.hands_score[f, p, 0]),
            hand_right_keypoints_2d=flat(k.hands[f, p, 1], k.hands_score[f, p, 1]),
        )

    frames = [
        _Frame.model_construct(people=[person(keypoints, f, p) for p in range(keypoints.num_people)])
        for f in range(keypoints.num_frames)
    ]
    file = JsonFile.model_construct(width=keypoints.width, height=keypoints.height, fps=keypoints.fps, frames=frames)
    return file.model_dump_json(exclude={"people"}).encode()


def read_json(path: epath.Path) -> JsonFile:
    """Read a file of either kind.

    Raises:
        InputError: something else, or damaged.
    """
    try:
        file = JsonFile.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{path} is not OpenPose-style JSON ({where + ': ' if where else ''}{error.errors()[0]['msg']})."
        ) from None
    if file.frames is None and file.people is None:
        raise InputError(f"{path} is not OpenPose-style JSON: it has neither 'frames' nor 'people'.")
    return file


def from_json(
    file: JsonFile,
    path: epath.Path,
    width: int | None,
    height: int | None,
    fps: float | None,
    fallback_size: tuple[int, int] | None,
) -> Keypoints:
    """Convert a file's content; see `files.load_keypoints` for the arguments. `path` is its name in messages.

    Raises:
        SizeMissingError: neither the file nor the caller gives the picture's size.
        InputError: parts of other lengths than OpenPose's, or values that cannot be.
    """
    fallback = fallback_size or (None, None)
    width, height = width or file.width or fallback[0], height or file.height or fallback[1]
    if not width or not height:
        raise SizeMissingError(
            f"{path} gives pixels but not the picture's size; pass the width and height of the video."
        )
    frames = file.all_frames()
    fps = known_rate(path, len(frames), fps, file.fps)
    people = max((len(frame.people) for frame in frames), default=0)
    triples = np.zeros((len(frames), people, NUM_POINTS, 3), np.float32)
    for f, frame in enumerate(frames):
        for p, person in enumerate(frame.people):
            triples[f, p] = np.concatenate([
                _part(person.pose_keypoints_2d, 18, {25: _BODY_FROM_BODY_25}, path),
                _part(person.hand_left_keypoints_2d, 21, {}, path),
                _part(person.hand_right_keypoints_2d, 21, {}, path),
                _part(person.face_keypoints_2d, 68, {70: list(range(68))}, path),  # OpenPose adds the pupils
            ])  # fmt: skip
    points, scores = triples[..., :2] / np.array([width, height], np.float32), triples[..., 2]
    try:
        return Keypoints(
            body=points[..., :HANDS, :],
            body_score=scores[..., :HANDS],
            hands=points[..., HANDS:FACE, :].reshape(len(frames), people, 2, 21, 2),
            hands_score=scores[..., HANDS:FACE].reshape(len(frames), people, 2, 21),
            faces=points[..., FACE:, :],
            faces_score=scores[..., FACE:],
            width=width,
            height=height,
            fps=fps,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def known_rate(path: epath.Path, num_frames: int, given: float | None, recorded: float | None) -> float:
    """Frames per second: as given, else as recorded, else 30, which is logged if there is more than one frame."""
    if given is not None:
        return given
    if recorded is not None:
        return recorded
    if num_frames > 1:
        assume_rate(str(path), FALLBACK_FPS)
    return FALLBACK_FPS


def _part(numbers: list[float], points: int, layouts: dict[int, list[int]], path: epath.Path) -> np.ndarray:
    if not numbers:
        return np.zeros((points, 3), np.float32)
    if len(numbers) == 3 * points:
        return np.reshape(numbers, (points, 3))
    for count, chosen in layouts.items():
        if len(numbers) == 3 * count:
            return np.reshape(numbers, (count, 3))[chosen]
    raise InputError(f"{path} has a person with {len(numbers)} numbers where {3 * points} are expected (x, y, score).")
