"""Keypoints in and out of files: ours (`.npz`, `.json`), those of other programs, and folders of a file per frame."""

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from mimicmotion_jax.pose.content import read_content
from mimicmotion_jax.pose.keypoints import ARRAYS, GROUPS, Keypoints
from mimicmotion_jax.pose.openpose import to_json
from mimicmotion_jax.pose.recording import Recording, check_count, check_distances, known_rate, to_keypoints
from mimicmotion_jax.pose.tracking import follow_people
from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.natural_order import natural_key
from mimicmotion_jax.runtime.numpy_files import read_bytes, read_npy, read_npz
from mimicmotion_jax.runtime.plain_pickle import load_pickle
from mimicmotion_jax.video.provenance import to_comment

FALLBACK_SIDE = 1024
"""Width and height of the picture of a `.npz` that does not record them, pixels."""

KEYPOINT_SUFFIXES = (".npz", ".json", ".jsonl", ".npy", ".pkl", ".pickle")
"""File name suffixes of keypoints, in lower case; those beside a video are looked for in this order."""

_MAX_BYTES = 2**27  # of a file whose content takes ten times as much memory as its text


def save_keypoints(keypoints: Keypoints, path: epath.PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write keypoints to a `.npz` file (exact) or a `.json` file (OpenPose's people, in pixels to four decimals).

    The file appears only when it is complete; an earlier one is replaced.

    Args:
        keypoints: what to write.
        path: local or gs://.
        metadata: stored in a `.npz` file as its `comment`, which marks it as a result (see `video.provenance`).

    Raises:
        InputError: another suffix.
    """
    path = epath.Path(path)
    if path.suffix.lower() == ".npz":
        content = _to_npz(keypoints, metadata)
    elif path.suffix.lower() == ".json":
        content = to_json(keypoints)
    else:
        raise InputError(f"keypoints are written to a .npz or a .json file, not to {path}.")
    write_file(path, content)


def load_keypoints(
    path: epath.PathLike,
    width: int | None = None,
    height: int | None = None,
    fps: float | None = None,
    fallback_size: tuple[int, int] | None = None,
    follow: bool = False,
) -> Keypoints:
    """Read keypoints from a file, or from a folder with a file per frame, in the order of the numbers in their names.

    Ours are `.npz` and `.json` (`save_keypoints`). In a `.npz` file, `body` [frames, (people,) 18, 2] is normalised to
    the picture, and has a `body_score`; `hands`, `faces` and their scores may be missing. Files of others, whose layout
    is recognised by its keys (`pose.content`):

    - OpenPose's JSON with 18 or 25 body points, as OpenPose, ControlNet's preprocessors and editors write it: one frame
      per file, or a list of frames;
    - DWPose's dictionaries per frame in `.pkl`, `.npy` or `.npz`; no code in them is run;
    - COCO-WholeBody points of MMPose, rtmlib, AlphaPose or COCO, in JSON or as arrays of 17, 133 or 134 points;
    - MediaPipe's landmarks in JSON.

    People keep the order in which a frame lists them. Coordinates from 0 to 1 are taken as shares of the picture, which
    is logged, and larger ones as pixels.

    Args:
        path: a file or folder, local or gs://.
        width: of the picture, pixels; goes before what the file records (`width` and `height`, or, in a `.npz`,
            `image_size` as height, width).
        height: of the picture, likewise.
        fps: frames per second; goes before what the file records. If neither says, 30 is assumed and logged.
        fallback_size: width and height of the picture, for a file that records none, such as OpenPose's own. Without
            it, one of our `.npz` is taken to be square, of 1024 pixels, which is logged.
        follow: put the people of other programs, which list them in any order, into columns
            (`tracking.follow_people`). Files that record the frame rate, as ours do, keep theirs.

    Raises:
        SizeMissingError: the picture's size is not known.
        InputError: no such file, not keypoints, damaged, coordinates far outside the picture, or a file that expands to
            more than can be meant.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"there is no keypoint file {path}.")
    if path.suffix.lower() == ".npz" and not path.is_dir():
        arrays = read_npz(io.BytesIO(read_bytes(path)), str(path))
        if "body" in arrays:
            return _from_npz(arrays, path, width, height, fps, fallback_size)
        arrays.pop("comment", None)
        recording = _recording(path, next(iter(arrays.values())) if len(arrays) == 1 else arrays)
    elif path.is_dir():
        parts = [_recording(file, _read(file)) for file in keypoint_files(path)]
        frames = [frame for part in parts for frame in part.frames]
        normalised = any(part.normalised for part in parts) or None
        recording = dataclasses.replace(parts[0], frames=frames, normalised=normalised)
    else:
        recording = _recording(path, _read(path))
    found = to_keypoints(recording, path, width, height, fps, fallback_size)
    return follow_people(found) if follow and recording.fps is None and found.num_people > 1 else found


def is_keypoints(path: epath.PathLike) -> bool:
    """Return True if a file or folder is to be read as keypoints rather than as a video."""
    path = epath.Path(path)
    return bool(_listed(path)) if path.is_dir() else path.suffix.lower() in KEYPOINT_SUFFIXES


def keypoint_files(folder: epath.PathLike) -> list[epath.Path]:
    """List the keypoint files of a folder, one per frame, in the order of the numbers in their names.

    Raises:
        InputError: none there.
    """
    files = _listed(epath.Path(folder))
    if not files:
        raise InputError(
            f"the folder {folder} holds no keypoints (*_keypoints.json or other .json files, one per frame)."
        )
    return files


def _listed(folder: epath.Path) -> list[epath.Path]:
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for path in files if path.name.lower().endswith("_keypoints.json")]
    if not found and all(path.suffix.lower() in KEYPOINT_SUFFIXES[1:] for path in files):
        found = files
    return sorted(found, key=lambda path: natural_key(path.name))


def _read(path: epath.Path) -> Any:
    """Read the plain content of a file."""
    suffix = path.suffix.lower()
    content = read_bytes(path, _MAX_BYTES)
    if suffix == ".npy":
        return read_npy(content, str(path))
    if suffix in (".pkl", ".pickle"):
        return load_pickle(content, str(path))
    try:
        return _parse_json(content)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{path} is not JSON ({reason}).") from None


def _parse_json(content: bytes) -> Any:
    """Parse JSON, or lines of JSON; UTF-8, -16 or -32, with a byte order mark or without."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        text = content.decode(json.detect_encoding(content))
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def _recording(path: epath.Path, content: Any) -> Recording:
    try:
        return read_content(content)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; it holds no keypoints.") from None
    except InputError as error:
        raise InputError(f"{path} cannot be read as keypoints: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError):  # what NumPy and Python say to other shapes and types
        raise InputError(f"{path} cannot be read as keypoints: its lists and arrays do not fit together.") from None


def _to_npz(keypoints: Keypoints, metadata: Mapping[str, str] | None) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dataclasses.asdict(keypoints)
    if metadata is not None:
        arrays["comment"] = to_comment(metadata)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _from_npz(
    found: dict[str, Any],
    path: epath.Path,
    width: int | None,
    height: int | None,
    fps: float | None,
    fallback_size: tuple[int, int] | None,
) -> Keypoints:
    if "body_score" not in found:
        raise InputError(f"{path} holds no keypoints: 'body_score' is missing.")
    try:
        if found["body"].ndim == 3:
            found |= {key: np.expand_dims(found[key], 1) for key in ARRAYS if key in found}
        frames_people = found["body"].shape[:2]
        check_count(path, *frames_people)
        for name, points in GROUPS.items():
            if name not in found:
                found[name] = np.zeros((*frames_people, *points, 2), np.float32)
                found[f"{name}_score"] = np.zeros((*frames_people, *points), np.float32)
        said = {"width": width, "height": height} | found
        if "image_size" not in found and not fallback_size and not (said["width"] and said["height"]):
            assume(f"{path} does not record the picture's size: {FALLBACK_SIDE}x{FALLBACK_SIDE} assumed.")
        size = np.ravel(
            found.get("image_size", fallback_size[::-1] if fallback_size else (FALLBACK_SIDE, FALLBACK_SIDE))
        )
        recorded = np.asarray(found["fps"]).item() if "fps" in found else None
        keypoints = Keypoints(
            **{key: found[key] for key in ARRAYS},
            width=width or np.asarray(found.get("width", size[-1])).item(),
            height=height or np.asarray(found.get("height", size[0])).item(),
            fps=known_rate(path, len(found["body"]), fps, recorded),
        )
        check_distances(keypoints)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path} holds no {error} for its points.") from None
    except (ValueError, TypeError, IndexError, AttributeError):
        raise InputError(f"{path} has a picture size, frame rate or array that is not what it should be.") from None
    return keypoints
