"""Detection over pictures and videos: one interface to DWPose and MediaPipe, people followed from frame to frame."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float, UInt8
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
from mimicmotion_jax.pose.tracking import assign_columns
from mimicmotion_jax.runtime.errors import InputError

Frame = UInt8[np.ndarray, "height width 3"]  # RGB
People = tuple[Float[np.ndarray, "people 133 2"], Float[np.ndarray, "people 133"]]  # pixels, confidence

DetectorName = Literal["auto", "dwpose", "mediapipe"]


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

    A column of the result is the same person as far as motions tell (see `tracking.assign_columns`); who is not in view
    has score 0. There are as many columns as people in the fullest frame, none if nobody was ever found.

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
