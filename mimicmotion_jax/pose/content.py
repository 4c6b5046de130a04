"""Layouts of keypoint files: recognise whose a file is by its keys, and find its frames and the people in them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mimicmotion_jax.pose.dwpose_files import read_dwpose
from mimicmotion_jax.pose.landmarks import has_landmarks, read_landmarks
from mimicmotion_jax.pose.openpose import is_person, read_editor, read_people
from mimicmotion_jax.pose.points import read_size, to_numbers
from mimicmotion_jax.pose.recording import MAX_POSES, Person, Recording
from mimicmotion_jax.pose.wholebody import read_array_frames, read_arrays, read_instances
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.natural_order import natural_key

_LISTS = ("frames", "instance_info", "annotations", "poses", "results", "predictions", "data", "keypoints_list")
_META = (
    *(
        "meta",
        "metadata",
        "meta_info",
        "video",
        "info",
        "video_info",
        "header",
        "resolution",
        "image",
        "canvas",
        "size",
    ),
)
_NUMBERS = ("image_id", "frame_id", "frame_index", "frame_idx", "frame", "frame_number", "image", "file_name")
_UNKNOWN = (
    "it holds no keypoints that are known (OpenPose, DWPose, COCO-WholeBody as of MMPose and rtmlib, MediaPipe, ours)."
)


def read_content(content: Any) -> Recording:
    """Find the frames of a file and the people in them.

    Args:
        content: dictionaries, lists and arrays, as JSON or a pickle gives them.

    Raises:
        InputError: not keypoints, or damaged; the message does not name the file.
    """
    if isinstance(content, np.ndarray) and content.dtype.kind == "O":
        content = content.item() if content.ndim == 0 else content.tolist()
    if isinstance(content, list | tuple) and _is_nested_list(content):
        content = to_numbers(content, "the list")
    if isinstance(content, np.ndarray):
        return Recording(read_array_frames(content))
    frames, meta = _split(content)
    width, height, fps = read_size(meta)
    sizes = {read_size(frame)[:2] for frame in frames if isinstance(frame, Mapping)} - {(None, None)}
    if len(sizes) > 1:
        raise InputError("its frames have pictures of different sizes; make them all the same.")
    if sizes and not width:
        ((width, height),) = sizes
    ours = isinstance(content, Mapping) and {"version", "width", "height", "fps", "frames"} == set(content)
    landmarks = any(isinstance(frame, Mapping) and _reader(frame) is read_landmarks for frame in frames)
    normalised = True if landmarks else False if ours else None
    return Recording([_read_frame(frame) for frame in frames], width, height, fps, normalised)


def _is_nested_list(content: Any) -> bool:
    """Return True if lists hold numbers at their end, at least two deep."""
    depth = 0
    while isinstance(content, list | tuple) and content:
        content, depth = content[0], depth + 1
    return depth >= 2 and isinstance(content, int | float)


def _split(content: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Frames of a file, and what it says of all of them."""
    if isinstance(content, list | tuple):
        return _group(content), {}
    if not isinstance(content, Mapping):
        raise InputError(_UNKNOWN)
    meta = {**content}
    for name in _META:
        if isinstance(inner := content.get(name), Mapping):
            meta = {**inner, **meta}
    if isinstance(images := content.get("images"), list) and isinstance(content.get("annotations"), list):
        return _coco(images, content["annotations"], meta)
    for name in _LISTS:
        inner = content.get(name)
        if isinstance(inner, Mapping):
            inner = _in_order(inner)
        if isinstance(inner, list | tuple | np.ndarray):
            return _group(list(inner)), meta
    if _reader(content) is None:
        frames = {
            key: value for key, value in content.items() if isinstance(value, Mapping | list) and key not in _META
        }
        return (_in_order(frames) if frames else [content]), meta
    if _is_stacked(content):
        arrays = {key: value for key, value in content.items() if np.ndim(value) >= 3}
        return [dict(zip(arrays, frame, strict=True)) for frame in zip(*arrays.values(), strict=True)], meta
    return [content], meta


def _in_order(frames: Mapping[Any, Any]) -> list[Any]:
    """Values of a dictionary of frames by their numbers or names."""
    return [frames[key] for key in sorted(frames, key=lambda key: natural_key(str(key)))]


def _group(items: Sequence[Any]) -> Sequence[Any]:
    """Join the people of a frame where each item of a list is one person."""
    people = [item for item in items if isinstance(item, Mapping) and _reader(item) is read_arrays]
    if not people or len(people) < len(items):
        return items
    if any(name in item for item in people for name in _NUMBERS):
        groups: dict[str, list[Any]] = {}
        for item in people:
            name = next((str(item[name]) for name in _NUMBERS if name in item), "")
            groups.setdefault(name, []).append(item)
        return _fill_gaps({name: {"instances": group} for name, group in groups.items()})
    if all("bbox" in item or "keypoint_scores" in item for item in people) and np.ndim(people[0]["keypoints"]) < 3:
        return [{"instances": people}]  # MMPose's file of one picture
    return items


def _coco(images: list[Any], annotations: list[Any], meta: Mapping[str, Any]) -> tuple[list[Any], Mapping[str, Any]]:
    """Frames of COCO's annotations, in the order of the pictures' names."""
    named = [image for image in images if isinstance(image, Mapping) and "id" in image]
    frames: dict[str, list[Any]] = {str(image["id"]): [] for image in sorted(named, key=_image_key)}
    for annotation in annotations:
        if isinstance(annotation, Mapping):
            frames.setdefault(str(annotation.get("image_id")), []).append(annotation)
    first = named[0] if named else {}
    return [{"instances": people} for people in frames.values()], {**first, **meta}


def _image_key(image: Mapping[str, Any]) -> Any:
    return natural_key(str(image.get("file_name", image["id"])))


def _fill_gaps(frames: Mapping[str, Any]) -> list[Any]:
    """Frames by their numbers; one without people, which detectors leave out, is empty."""
    ordered = sorted(frames, key=natural_key)
    numbers = [
        [int(number) for number in re.findall(r"\d{1,9}", re.sub(r"\.[a-zA-Z]\w*$", "", name))[-1:]] for name in ordered
    ]
    if all(numbers):
        first, last = numbers[0][0], numbers[-1][0]
        by_number = dict(zip((number for (number,) in numbers), ordered, strict=True))
        if len(by_number) == len(frames) and len(frames) <= last - first + 1 <= min(4 * len(frames), MAX_POSES):
            return [
                frames[by_number[number]] if number in by_number else {"instances": []}
                for number in range(first, last + 1)
            ]
    return [frames[name] for name in ordered]


def _is_stacked(content: Mapping[str, Any]) -> bool:
    """Return True if arrays hold all frames: `keypoints` of people, or DWPose's `hands`."""
    return any(isinstance(content.get(name), np.ndarray) and content[name].ndim == 4 for name in ("keypoints", "hands"))


def _read_frame(frame: Any) -> list[Person]:
    if frame is None:
        return []
    if isinstance(frame, np.ndarray) and frame.dtype.kind != "O":
        return [person for people in read_array_frames(frame[None] if frame.ndim == 3 else frame) for person in people]
    if isinstance(frame, np.ndarray):
        frame = frame.tolist()
    if isinstance(frame, list | tuple):
        if all(isinstance(person, Mapping) and is_person(person) for person in frame):
            return read_people(frame)
        return read_instances(frame)
    if not isinstance(frame, Mapping):
        raise InputError(_UNKNOWN)
    reader = _reader(frame)
    if reader is None:
        if set(frame) & {"animals"}:
            return []
        raise InputError(_UNKNOWN)
    return reader(frame)


def _reader(frame: Mapping[str, Any]) -> Any:
    """Function that reads a frame with these keys; None if they are unknown."""
    if "people" in frame:
        return lambda frame: read_people(frame["people"])
    if is_person(frame):
        return lambda frame: read_people([frame])
    if "bodies" in frame:
        return read_dwpose
    if "instances" in frame:
        return lambda frame: read_instances(frame["instances"])
    if "keypoints" in frame:
        keypoints = frame["keypoints"]
        if {"width", "height"} <= set(frame) and not set(frame) & {"scores", "keypoint_scores", "bbox"}:
            return read_editor
        if isinstance(keypoints, list | tuple) and keypoints and isinstance(keypoints[0], Mapping):
            return lambda frame: read_instances(frame["keypoints"])
        return read_arrays
    if has_landmarks(frame):
        return read_landmarks
    return None
