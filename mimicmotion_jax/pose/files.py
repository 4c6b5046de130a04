"""Keypoints in and out of files: our `.npz`, OpenPose-style `.json`, and OpenPose's folders of one file per frame."""

import dataclasses
import io
import zipfile
import zlib

import numpy as np
import pydantic
from etils import epath

from mimicmotion_jax.directories import write_file
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.pose.keypoints import ARRAYS, GROUPS, Keypoints

# What a file that records neither is taken to mean, unless the caller of `load_keypoints` says otherwise.
FALLBACK_SIDE = 1024
FALLBACK_FPS = 30.0

# BODY_25 has a middle hip at 8 and six foot points from 19 on.
_BODY_FROM_BODY_25 = [*range(8), *range(9, 19)]


def save_keypoints(keypoints: Keypoints, path: epath.PathLike) -> None:
    """Write keypoints to a `.npz` file (exact) or a `.json` file (OpenPose's people, in pixels to four decimals).

    The file appears only when it is complete.

    Raises:
        InputError: another suffix.
    """
    path = epath.Path(path)
    if path.suffix == ".npz":
        content = _to_npz(keypoints)
    elif path.suffix == ".json":
        content = _to_json(keypoints)
    else:
        raise InputError(f"keypoints are written to a .npz or a .json file, not to {path}.")
    write_file(path, content)


def load_keypoints(
    path: epath.PathLike, width: int | None = None, height: int | None = None, fps: float | None = None
) -> Keypoints:
    """Read keypoints from `.npz`, from `.json`, or from a folder of OpenPose's `*_keypoints.json` (a frame per file).

    A `.npz` file needs `body` [frames, (people,) 18, 2] normalised to the picture, and `body_score`; `hands`, `faces`
    and their scores may be missing. A `.json` file is ours or one frame by OpenPose, with 18 or 25 body points in
    pixels. People keep the order in which a frame lists them.

    Args:
        path: The file or folder.
        width: Of the picture, pixels; goes before what the file records. A `.npz` without a size (`width` and
            `height`, or `image_size` as height, width) is taken to be square, of 1024 pixels; OpenPose's own files
            need it, because their coordinates are in pixels.
        height: Likewise.
        fps: Goes before what the file records; 30 if neither says.

    Raises:
        InputError: no such file, not keypoints, or damaged.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"there is no keypoint file {path}.")
    if path.is_dir():
        files = sorted(path.glob("*_keypoints.json"))
        if not files:
            raise InputError(f"the folder {path} holds no *_keypoints.json files, OpenPose's one file per frame.")
        parts = [_read_json(file) for file in files]
        merged = parts[0].model_copy(update={"frames": [frame for part in parts for frame in part.all_frames()]})
        return _from_json(merged, path, width, height, fps)
    if path.suffix == ".json":
        return _from_json(_read_json(path), path, width, height, fps)
    return _from_npz(path, width, height, fps)


def _to_npz(keypoints: Keypoints) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dataclasses.asdict(keypoints))
    return buffer.getvalue()


def _from_npz(path: epath.Path, width: int | None, height: int | None, fps: float | None) -> Keypoints:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {key: file[key] for key in (*ARRAYS, "width", "height", "fps", "image_size") if key in file}
    # np.load returns a bare array, which is no context manager, for .npy content.
    except (ValueError, EOFError, TypeError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path} is no readable .npz of keypoints; it may be cut short or something else.") from None
    if "body" not in found or "body_score" not in found:
        raise InputError(f"{path} holds no keypoints: 'body' and 'body_score' are missing.")
    try:
        if found["body"].ndim == 3:
            found |= {key: np.expand_dims(found[key], 1) for key in ARRAYS if key in found}
        frames_people = found["body"].shape[:2]
        for name, points in GROUPS.items():
            if name not in found:
                found[name] = np.zeros((*frames_people, *points, 2), np.float32)
                found[f"{name}_score"] = np.zeros((*frames_people, *points), np.float32)
        size = np.ravel(found.get("image_size", (FALLBACK_SIDE, FALLBACK_SIDE)))
        return Keypoints(
            **{key: found[key] for key in ARRAYS},
            width=width or int(found.get("width", size[-1])),
            height=height or int(found.get("height", size[0])),
            fps=fps or float(found.get("fps", FALLBACK_FPS)),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path} holds no {error} for its points.") from None
    except (ValueError, TypeError, IndexError):
        raise InputError(f"{path} has a picture size, frame rate or array that is not what it should be.") from None


class _Person(pydantic.BaseModel):
    """One person of OpenPose's JSON: flat lists of x, y, confidence, empty for a part that was not looked for."""

    pose_keypoints_2d: list[float] = []
    face_keypoints_2d: list[float] = []
    hand_left_keypoints_2d: list[float] = []
    hand_right_keypoints_2d: list[float] = []


class _Frame(pydantic.BaseModel):
    people: list[_Person]


class _File(pydantic.BaseModel):
    version: float = 1
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: list[_Frame] | None = None
    people: list[_Person] | None = None  # in OpenPose's own files, which hold one frame

    def all_frames(self) -> list[_Frame]:
        return self.frames if self.frames is not None else [_Frame(people=self.people or [])]


def _to_json(keypoints: Keypoints) -> bytes:
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
    file = _File.model_construct(width=keypoints.width, height=keypoints.height, fps=keypoints.fps, frames=frames)
    return file.model_dump_json(exclude={"people"}).encode()


def _read_json(path: epath.Path) -> _File:
    try:
        file = _File.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{path} is not OpenPose-style JSON ({where + ': ' if where else ''}{error.errors()[0]['msg']})."
        ) from None
    if file.frames is None and file.people is None:
        raise InputError(f"{path} is not OpenPose-style JSON: it has neither 'frames' nor 'people'.")
    return file


def _from_json(file: _File, path: epath.Path, width: int | None, height: int | None, fps: float | None) -> Keypoints:
    width, height, fps = width or file.width, height or file.height, fps or file.fps or FALLBACK_FPS
    if not width or not height:
        raise InputError(f"{path} gives pixels but not the picture's size; pass the width and height of the video.")
    frames = file.all_frames()
    people = max((len(frame.people) for frame in frames), default=0)
    triples = np.zeros((len(frames), people, 18 + 2 * 21 + 68, 3), np.float32)
    for f, frame in enumerate(frames):
        for p, person in enumerate(frame.people):
            triples[f, p] = np.concatenate([
                _part(person.pose_keypoints_2d, 18, {25: _BODY_FROM_BODY_25}, path),
                _part(person.hand_left_keypoints_2d, 21, {}, path),
                _part(person.hand_right_keypoints_2d, 21, {}, path),
                _part(person.face_keypoints_2d, 68, {70: list(range(68))}, path),  # OpenPose adds the pupils
            ])  # fmt: skip
    points, scores = triples[..., :2] / np.float32([width, height]), triples[..., 2]
    try:
        return Keypoints(
            body=points[..., :18, :],
            body_score=scores[..., :18],
            hands=points[..., 18:60, :].reshape(len(frames), people, 2, 21, 2),
            hands_score=scores[..., 18:60].reshape(len(frames), people, 2, 21),
            faces=points[..., 60:, :],
            faces_score=scores[..., 60:],
            width=width,
            height=height,
            fps=fps,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _part(numbers: list[float], points: int, layouts: dict[int, list[int]], path: epath.Path) -> np.ndarray:
    if not numbers:
        return np.zeros((points, 3), np.float32)
    if len(numbers) == 3 * points:
        return np.reshape(numbers, (points, 3))
    for count, chosen in layouts.items():
        if len(numbers) == 3 * count:
            return np.reshape(numbers, (count, 3))[chosen]
    raise InputError(f"{path} has a person with {len(numbers)} numbers where {3 * points} are expected (x, y, score).")
