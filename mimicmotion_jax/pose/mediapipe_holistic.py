"""MediaPipe Holistic as a pose detector: one person, offline, with the models inside the `mediapipe` package.

It differs from DWPose in what its confidences mean: a body point's is its visibility, at most 1, and stays high for
eyes and ears that are turned away; a hand or a face is found as a whole (1) or not at all (0). Small or blurred hands
are often not found.
"""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from beartype import beartype
from jaxtyping import Float, UInt8, jaxtyped

from mimicmotion_jax.pose.landmarks import MEDIAPIPE_BODY, MEDIAPIPE_FACE
from mimicmotion_jax.pose.stderr_filter import without_lines
from mimicmotion_jax.runtime.errors import InputError

# How far outside the picture a point, which can only be a guess there, loses all confidence: a share of the long side.
_OUTSIDE_FADE = 0.05
_SEEN = 0.5  # visibility
_SHOULDERS = [5, 6]
_MIN_PERSON = 48  # pixels
_SEARCH_EVERY = 8  # a frame without anybody takes 10 times as long when it is searched

# Notes of MediaPipe's C++ code on stderr, which no log level in the environment stops; its errors come as exceptions.
_NOTES = re.compile(
    rb"[IW]0000 .* (inference_feedback_manager|landmark_projection_calculator|gl_context\w*)\.cc:|"
    rb"INFO: Created TensorFlow Lite|WARNING: All log messages before absl::InitializeLog"
)

_Window = tuple[int, int, int, int]  # left, top, right, bottom, pixels
_People = tuple[Float[np.ndarray, "people 133 2"], Float[np.ndarray, "people 133"]]


class MediapipeDetector:
    """Finds the most prominent person of a picture.

    MediaPipe looks at pictures shrunk to 224 pixels, where a small person is lost: if nobody is found, overlapping
    squares of the picture are searched, and detection goes on in a window around the person.

    Raises:
        InputError: MediaPipe is not installed.
    """

    def __init__(self) -> None:
        try:
            from mediapipe.python.solutions.holistic import Holistic
        except ModuleNotFoundError:
            raise InputError(
                'pose detection with MediaPipe needs it installed; run pip install "mimicmotion_jax[mediapipe]".'
            ) from None
        warnings.filterwarnings("ignore", r"SymbolDatabase\.GetPrototype", UserWarning)  # its protobuf, at each result
        # The newer Tasks interface needs model files that do not come with the package.
        self._holistic = Holistic

    @jaxtyped(typechecker=beartype)
    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> _People:
        """COCO-WholeBody points in pixels and confidences of one person or nobody; the feet are left out."""
        window = self._find_window(frame)
        return _nobody() if window is None else _read(self._still, frame, window)

    def track(self, frames: Iterable[UInt8[np.ndarray, "height width 3"]]) -> Iterator[_People]:
        """`detect` for the frames of one video, following the person from frame to frame: faster and steadier."""
        with contextlib.closing(self._build(still=False)) as holistic:
            window: _Window | None = None
            lost = 0
            for frame in frames:
                window = window or _whole(frame)
                points, scores = _read(holistic, frame, window)
                if len(points) == 0 and lost % _SEARCH_EVERY == 0:
                    found = self._find_window(frame)
                    if found is not None:
                        window = found
                        _restart(holistic)
                        points, scores = _read(holistic, frame, window)
                elif len(points) and not _inside(points[0], scores[0], window, frame):
                    window = _around(points[0], scores[0], frame)
                    _restart(holistic)
                lost = 0 if len(points) else lost + 1
                yield points, scores

    @cached_property
    def _still(self):
        return self._build(still=True)

    def _build(self, still: bool):
        with without_lines(_NOTES):
            holistic = self._holistic(static_image_mode=still)
        _restart(holistic)
        return holistic

    def _find_window(self, frame: np.ndarray) -> _Window | None:
        """The whole frame if a person is found in it, else a window around the largest found in a part of it."""
        if len(_read(self._still, frame, _whole(frame))[0]):
            return _whole(frame)
        for side in (min(frame.shape[:2]), min(frame.shape[:2]) // 2):
            found = [_read(self._still, frame, tile) for tile in _tiles(frame, side)]
            windows = [_around(points[0], scores[0], frame) for points, scores in found if _believable(points, scores)]
            windows = [window for window in windows if _believable(*_read(self._still, frame, window))]
            if windows:
                return max(windows, key=lambda window: window[3] - window[1])
        return None


def _restart(holistic) -> None:
    """Forget the frames so far."""
    with without_lines(_NOTES):
        holistic.reset()
        # The models are loaded in the background, and talk about it, until the first picture is done.
        holistic.process(np.zeros((64, 64, 3), np.uint8))


def _read(holistic, frame: np.ndarray, window: _Window) -> tuple[np.ndarray, np.ndarray]:
    """Run on a window of the frame; points in the frame's pixels."""
    left, top, right, bottom = window
    with without_lines(_NOTES):
        results = holistic.process(np.ascontiguousarray(frame[top:bottom, left:right]))
    if results.pose_landmarks is None:
        return _nobody()
    points, scores = np.zeros((133, 2), np.float32), np.zeros(133, np.float32)
    body = results.pose_landmarks.landmark
    points[:17] = _coordinates(body)[MEDIAPIPE_BODY]
    scores[:17] = np.array([point.visibility for point in body])[MEDIAPIPE_BODY]
    if results.face_landmarks is not None:
        points[23:91], scores[23:91] = _coordinates(results.face_landmarks.landmark)[MEDIAPIPE_FACE], 1
    if results.left_hand_landmarks is not None:
        points[91:112], scores[91:112] = _coordinates(results.left_hand_landmarks.landmark), 1
    if results.right_hand_landmarks is not None:
        points[112:], scores[112:] = _coordinates(results.right_hand_landmarks.landmark), 1
    points = points * np.array([right - left, bottom - top], np.float32) + np.array([left, top], np.float32)
    return points[None], (scores * _fade(points, frame))[None]


def _nobody() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 133, 2), np.float32), np.zeros((0, 133), np.float32)


def _coordinates(landmarks) -> np.ndarray:
    return np.array([(point.x, point.y) for point in landmarks])


def _fade(points: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """1 inside the picture, falling to 0 outside it."""
    size = np.asarray(frame.shape[1::-1], np.float32)
    outside = np.maximum(np.maximum(-points, points - size), 0).max(-1)
    return np.maximum(1 - outside / (_OUTSIDE_FADE * size.max()), 0)


def _whole(frame: np.ndarray) -> _Window:
    return 0, 0, frame.shape[1], frame.shape[0]


def _tiles(frame: np.ndarray, side: int) -> Iterator[_Window]:
    """Squares that overlap by at least half and cover the frame."""
    height, width = frame.shape[:2]
    for top in _starts(height, side):
        for left in _starts(width, side):
            yield left, top, left + side, top + side


def _starts(length: int, side: int) -> np.ndarray:
    return np.linspace(0, length - side, 1 + -(-(length - side) // max(side // 2, 1))).astype(int)


def _around(points: np.ndarray, scores: np.ndarray, frame: np.ndarray) -> _Window:
    """A square of 1.6 times the person's longer side, as far as the picture goes."""
    low, high = _extent(points, scores)
    center, half = (low + high) / 2, 0.8 * max((high - low).max(), 16)
    size = np.array(frame.shape[1::-1])
    (left, top), (right, bottom) = np.clip([center - half, center + half], 0, size).round().astype(int).tolist()
    return left, top, right, bottom


def _inside(points: np.ndarray, scores: np.ndarray, window: _Window, frame: np.ndarray) -> bool:
    """Return True if the person keeps clear of the window's edges, other than those of the picture."""
    low, high = _extent(points, scores)
    left, top, right, bottom = window
    margin = 0.05 * (bottom - top)
    width, height = frame.shape[1], frame.shape[0]
    clear = [low[0] > left + margin or left == 0, low[1] > top + margin or top == 0]
    return all([*clear, high[0] < right - margin or right == width, high[1] < bottom - margin or bottom == height])


def _believable(points: np.ndarray, scores: np.ndarray) -> bool:
    """Return True if a detection in a part of the picture is a person: more parts give more false alarms."""
    if len(points) == 0 or (scores[0, _SHOULDERS] < _SEEN).any():
        return False
    low, high = _extent(points[0], scores[0])
    return bool((high - low).max() >= _MIN_PERSON)


def _extent(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = points[scores > _SEEN]
    if len(seen) == 0:
        seen = points[:17]
    return seen.min(0), seen.max(0)
