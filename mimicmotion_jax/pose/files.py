"""Keypoints in and out of files: our `.npz`, OpenPose-style `.json`, and OpenPose's folders of one file per frame."""

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from mimicmotion_jax.pose.keypoints import ARRAYS, GROUPS, Keypoints
from mimicmotion_jax.pose.openpose import from_json, known_rate, read_json, to_json
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.provenance import to_comment

FALLBACK_SIDE = 1024
"""Width and height of the picture of a `.npz` that does not record them, pixels."""


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
) -> Keypoints:
    """Read keypoints from `.npz`, from `.json`, or from a folder of OpenPose's `*_keypoints.json` (a frame per file).

    A `.npz` file needs `body` [frames, (people,) 18, 2] normalised to the picture, and `body_score`; `hands`, `faces`
    and their scores may be missing. A `.json` file is ours or one frame by OpenPose, with 18 or 25 body points in
    pixels. People keep the order in which a frame lists them.

    Args:
        path: a file or folder, local or gs://.
        width: of the picture, pixels; goes before what the file records (`width` and `height`, or, in a `.npz`,
            `image_size` as height, width).
        height: of the picture, likewise.
        fps: frames per second; goes before what the file records. If neither says, 30 is assumed and logged.
        fallback_size: width and height of the picture, for a file that records none, such as OpenPose's own. Without
            it, such a `.npz` is taken to be square, of 1024 pixels.

    Raises:
        SizeMissingError: coordinates in pixels of a picture of unknown size.
        InputError: no such file, not keypoints, or damaged.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"there is no keypoint file {path}.")
    if path.is_dir():
        files = sorted(path.glob("*_keypoints.json"))
        if not files:
            raise InputError(f"the folder {path} holds no *_keypoints.json files, OpenPose's one file per frame.")
        parts = [read_json(file) for file in files]
        merged = parts[0].model_copy(update={"frames": [frame for part in parts for frame in part.all_frames()]})
        return from_json(merged, path, width, height, fps, fallback_size)
    if path.suffix.lower() == ".json":
        return from_json(read_json(path), path, width, height, fps, fallback_size)
    return _from_npz(path, width, height, fps, fallback_size)


def _to_npz(keypoints: Keypoints, metadata: Mapping[str, str] | None) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dataclasses.asdict(keypoints)
    if metadata is not None:
        arrays["comment"] = to_comment(metadata)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _from_npz(
    path: epath.Path, width: int | None, height: int | None, fps: float | None, fallback_size: tuple[int, int] | None
) -> Keypoints:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {key: file[key] for key in (*ARRAYS, "width", "height", "fps", "image_size") if key in file}
    # np.load returns a bare array, which is no context manager, for .npy content.
    except (
        *(ValueError, EOFError, TypeError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error),
        MemoryError,  # a header that promises terabytes
    ):
        raise InputError(f"{path} is not a readable .npz of keypoints; it may be cut short.") from None
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
        size = np.ravel(
            found.get("image_size", fallback_size[::-1] if fallback_size else (FALLBACK_SIDE, FALLBACK_SIDE))
        )
        recorded = np.asarray(found["fps"]).item() if "fps" in found else None
        return Keypoints(
            **{key: found[key] for key in ARRAYS},
            width=width or np.asarray(found.get("width", size[-1])).item(),
            height=height or np.asarray(found.get("height", size[0])).item(),
            fps=known_rate(path, len(found["body"]), fps, recorded),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path} holds no {error} for its points.") from None
    except (ValueError, TypeError, IndexError):
        raise InputError(f"{path} has a picture size, frame rate or array that is not what it should be.") from None
