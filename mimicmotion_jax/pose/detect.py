"""Detection over pictures and videos: one interface to DWPose and MediaPipe, people followed from frame to frame."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from beartype import beartype
from jaxtyping import Float, UInt8, jaxtyped
from tqdm import tqdm

from mimicmotion_jax.pose.dwpose import (
    HUB_FILES,
    HUB_REPO,
    Device,
    DwposeDetector,
    cached_models,
    download_models,
    hash_models,
)
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.mediapipe_holistic import MediapipeDetector
from mimicmotion_jax.runtime.errors import InputError

Frame = UInt8[np.ndarray, "height width 3"]  # RGB
People = tuple[Float[np.ndarray, "people 133 2"], Float[np.ndarray, "people 133"]]  # pixels, confidence

DetectorName = Literal["auto", "dwpose", "mediapipe"]

_SEEN = 0.3


class Detector(Protocol):
    """Finds people in pictures as COCO-WholeBody points in pixels with confidences; 0 means missing."""

    def detect(self, frame: Frame) -> People:
        """Detect everybody in one picture."""
        ...

    def track(self, frames: Iterable[Frame]) -> Iterator[People]:
        """Detect everybody in each frame of one video, in order; may use earlier frames."""
        ...


def load_detector(
    name: DetectorName = "auto",
    *,
    person_model: str | Path | None = None,
    pose_model: str | Path | None = None,
    device: Device = "auto",
) -> Detector:
    """Load a detector.

    Args:
        name: "dwpose" (what the official release uses; several people) takes the two ONNX files given, or those in the
            hub's cache, or downloads them. "mediapipe" (one person) needs no files. "auto" is DWPose when its files are
            given or cached, and MediaPipe otherwise.
        person_model: DWPose's person detector `yolox_l.onnx`.
        pose_model: DWPose's whole-body model `dw-ll_ucoco_384.onnx`.
        device: where DWPose runs; "auto" is CUDA where onnxruntime has it.

    Raises:
        InputError: no detector is installed, a package or file is missing, a file holds another model, or only one of
            the two files is given.
    """
    models = _find_models(name, person_model, pose_model)
    return MediapipeDetector() if models is None else DwposeDetector(*models, device)


def identify_detector(
    name: DetectorName = "auto", *, person_model: str | Path | None = None, pose_model: str | Path | None = None
) -> str:
    """Name the detector that `load_detector` would load, and what its results depend on; no network is loaded.

    Arguments and errors are those of `load_detector`.

    Returns:
        "dwpose" and the SHA-256 of both model files, or "mediapipe" and the version of the package that holds its
        models.
    """
    models = _find_models(name, person_model, pose_model)
    if models is not None:
        return " ".join(("dwpose", *hash_models(*models)))
    packages = sorted(set(packages_distributions()["mediapipe"]))
    return " ".join(("mediapipe", *(version(package) for package in packages)))


def _find_models(
    name: DetectorName, person_model: str | Path | None, pose_model: str | Path | None
) -> tuple[str | Path, str | Path] | None:
    """DWPose's two files if that is the detector to use, None if MediaPipe is."""
    if name not in ("auto", "dwpose", "mediapipe"):
        raise InputError(f"there is no pose detector '{name}'; choose auto, dwpose or mediapipe.")
    if (person_model is None) != (pose_model is None):
        raise InputError(f"DWPose needs both of its files, {' and '.join(HUB_FILES)}; only one was given.")
    if person_model is not None and pose_model is not None:
        if name == "mediapipe":
            raise InputError("MediaPipe takes no model files; leave them out or choose dwpose.")
        return person_model, pose_model
    if name == "dwpose":
        return cached_models() or download_models()
    can_run_dwpose = find_spec("rtmlib") is not None and find_spec("onnxruntime") is not None
    if name == "auto" and can_run_dwpose and (cached := cached_models()):
        return cached
    if find_spec("mediapipe") is not None:
        return None
    if name == "mediapipe":
        raise InputError('MediaPipe is not installed; run pip install "mimicmotion_jax[mediapipe]".')
    raise InputError(
        'no pose detector is installed: run pip install "mimicmotion_jax[mediapipe]", or '
        f'pip install "mimicmotion_jax[dwpose]" and get {" and ".join(HUB_FILES)} from {HUB_REPO} on the hub.'
    )


def detect_video(
    frames: Iterable[Frame],
    detector: Detector,
    fps: float,
    num_frames: int | None = None,
    progress: bool = True,
) -> Keypoints:
    """Detect everybody in a video, read frame by frame: memory grows by 1.6 kB per person and frame.

    A column of the result is the same person as far as positions tell (see `assign_columns`); who is not in view has
    score 0. There are as many columns as people in the fullest frame, none if nobody was ever found.

    Args:
        frames: RGB frames of one size.
        detector: see `load_detector`.
        fps: frames per second of `frames` (after any stride).
        num_frames: number of frames, if known, for the progress bar.
        progress: show a progress bar.

    Raises:
        InputError: no frames, a frame that is not uint8 RGB of the first one's size, or a frame rate that is not
            positive.
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"the frame rate must be above 0 frames per second, not {fps}.")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError("the video has no frames to detect poses in; check that it plays and that the range is right.")
    checked = _check_frames(itertools.chain([first], iterator))
    tracked = tqdm(detector.track(checked), "poses", total=num_frames, unit="frame", disable=not progress)
    people = [(points.astype(np.float32), scores.astype(np.float32)) for points, scores in tracked]
    height, width = first.shape[:2]
    return _to_keypoints(people, width, height, fps)


def detect_image(image: Frame, detector: Detector) -> Keypoints:
    """Detect everybody in one RGB picture: keypoints of one frame at 1 fps, no people if nobody was found.

    Raises:
        InputError: not a uint8 RGB picture.
    """
    (checked,) = _check_frames([image])
    height, width = image.shape[:2]
    return _to_keypoints([detector.detect(checked)], width, height, fps=1.0)


@jaxtyped(typechecker=beartype)
def assign_columns(
    people: Sequence[tuple[Float[np.ndarray, "_ 133 2"], Float[np.ndarray, "_ 133"]]],
) -> list[list[int]]:
    """Give each person of each frame a column (0, 1, …), such that a column follows one person.

    Each frame's people are matched greedily with where the columns were last seen: the largest overlap of bounding
    boxes first, then, without overlap, the nearest in place and size. A column is added only when a frame holds more
    people than there are columns, so that a cut to another view of a lone dancer stays in one column.
    """
    last_boxes = np.zeros((0, 4))
    columns = []
    for points, scores in people:
        boxes = np.array([_box(*person) for person in zip(points, scores, strict=True)]).reshape(-1, 4)
        cost = _distance(boxes[:, None], last_boxes[None])  # [people, columns]
        matched: dict[int, int] = {}
        for person, column in zip(*np.unravel_index(np.argsort(cost, axis=None), cost.shape), strict=True):
            if person not in matched and column not in matched.values():
                matched[int(person)] = int(column)
        unmatched = [person for person in range(len(boxes)) if person not in matched]
        matched |= {person: len(last_boxes) + new for new, person in enumerate(unmatched)}
        last_boxes = np.concatenate([last_boxes, boxes[unmatched]])
        columns.append([matched[person] for person in range(len(boxes))])
        last_boxes[columns[-1]] = boxes
    return columns


def _to_keypoints(people: Sequence[People], width: int, height: int, fps: float) -> Keypoints:
    columns = assign_columns(people)
    shape = (len(people), max(len(scores) for _, scores in people), 133)
    points, scores = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
    for frame, (frame_points, frame_scores) in enumerate(people):
        points[frame, columns[frame]] = frame_points
        scores[frame, columns[frame]] = frame_scores
    return Keypoints.from_coco(points, scores, width=width, height=height, fps=fps)


def _check_frames(frames: Iterable[Frame]) -> Iterator[Frame]:
    expected = None
    for index, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise InputError(f"frame {index} is not an RGB picture of type uint8, height x width x 3; convert it.")
        if expected is None:
            expected = frame.shape
        if frame.shape != expected:
            raise InputError(
                f"frame {index} is {frame.shape[1]}x{frame.shape[0]} and the first was {expected[1]}x{expected[0]}; "
                "all frames of a video must have one size."
            )
        yield frame


def _box(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Bounding box (left, top, right, bottom) of the points that were seen, or of all where none was."""
    seen = points[scores > _SEEN] if (scores > _SEEN).any() else points
    return np.concatenate([seen.min(0), seen.max(0)])


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dissimilarity of two boxes: 1 - IoU where they overlap, above 1 where they do not."""
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.maximum(overlap, 0).prod(-1)
    union = size_a.prod(-1) + size_b.prod(-1) - intersection
    # One pixel stands in for the side of a box that is a single point.
    side_a, side_b = size_a.max(-1).clip(1), size_b.max(-1).clip(1)
    centres = np.linalg.norm((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2, axis=-1)
    apart = 1 + centres / side_a + np.abs(np.log(side_a / side_b))
    return np.where(intersection > 0, 1 - intersection / np.maximum(union, 1), apart)
