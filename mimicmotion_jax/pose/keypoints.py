"""`Keypoints`: whole-body points with confidence over the frames of a video.

The body has OpenPose's 18 points (`Body`). Left and right are the person's own, here, in COCO-WholeBody and in
OpenPose's JSON, so hand 0 is `hand_left_keypoints_2d`. A hand is its wrist, then five fingers of four points from the
thumb on; the face is the 68-point layout of iBUG 300-W.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Self

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped

from mimicmotion_jax.runtime.errors import InputError

GROUPS = {"body": (18,), "hands": (2, 21), "faces": (68,)}
ARRAYS = [key for name in GROUPS for key in (name, f"{name}_score")]
MAX_SIDE = 65536  # pixels of the source picture
MIN_FPS, MAX_FPS = 0.01, 1000.0

# COCO-WholeBody's index of each OpenPose body point; the neck, which COCO lacks, is computed from the shoulders (5, 6).
_BODY_FROM_COCO = np.array([0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3])
_COCO_SHOULDERS = [5, 6]
_NECK_THRESHOLD = 0.3

_MIRRORED_BODY = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
_MIRRORED_FACE = [
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
]


class Body(enum.IntEnum):
    """Index of each body point."""

    NOSE = 0
    NECK = 1
    R_SHOULDER = 2
    R_ELBOW = 3
    R_WRIST = 4
    L_SHOULDER = 5
    L_ELBOW = 6
    L_WRIST = 7
    R_HIP = 8
    R_KNEE = 9
    R_ANKLE = 10
    L_HIP = 11
    L_KNEE = 12
    L_ANKLE = 13
    R_EYE = 14
    L_EYE = 15
    R_EAR = 16
    L_EAR = 17


@dataclasses.dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints of P people over F frames, float32.

    Coordinates are x / width and y / height of the picture and may lie outside [0, 1]. Scores are the detector's
    confidence, at least 0; DWPose's reach 1.2. A point or person that is missing from a frame has score 0.

    Raises:
        InputError: a shape that does not fit, a coordinate or score that is not finite, a negative score, or a size or
            frame rate that no video has.
    """

    body: Float[np.ndarray, "frames people 18 2"]
    body_score: Float[np.ndarray, "frames people 18"]
    hands: Float[np.ndarray, "frames people 2 21 2"]  # the person's left hand, then the right
    hands_score: Float[np.ndarray, "frames people 2 21"]
    faces: Float[np.ndarray, "frames people 68 2"]
    faces_score: Float[np.ndarray, "frames people 68"]
    width: int  # of the source picture, pixels
    height: int
    fps: float  # frames per second; 1 for a still picture

    def __post_init__(self) -> None:
        frames_people = np.shape(self.body)[:2]
        for name, points in GROUPS.items():
            for key, shape in ((name, (*frames_people, *points, 2)), (f"{name}_score", (*frames_people, *points))):
                array = np.asarray(getattr(self, key))
                if array.dtype.kind not in "fiu" or array.shape != shape or len(frames_people) != 2:
                    expected = " x ".join(str(side) for side in ("frames", "people", *shape[2:]))
                    raise InputError(f"keypoints '{key}' should be numbers of shape {expected}, not {array.shape}.")
                array = array.astype(np.float32)
                if not np.isfinite(array).all():
                    raise InputError(f"keypoints '{key}' hold NaN or infinity; give missing points score 0 instead.")
                if key.endswith("_score") and (array < 0).any():
                    raise InputError(f"keypoints '{key}' hold negative scores; a missing point has score 0.")
                object.__setattr__(self, key, array)
        # Compared before they are converted: infinity is not an integer.
        sides = all(1 <= side <= MAX_SIDE for side in (self.width, self.height))
        if not sides or not MIN_FPS <= self.fps <= MAX_FPS:
            raise InputError(
                f"keypoints need a picture of 1 to {MAX_SIDE} pixels a side and {MIN_FPS} to {MAX_FPS} frames per "
                f"second, not {self.width} x {self.height} at {self.fps}."
            )
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "height", int(self.height))
        object.__setattr__(self, "fps", float(self.fps))

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.body.shape[0]

    @property
    def num_people(self) -> int:
        """Number of people; one who is not in view has score 0."""
        return self.body.shape[1]

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, frames: slice) -> Self:
        """The frames of a slice, for example `keypoints[10:20]` or `keypoints[::2]` (which leaves `fps` as it is)."""
        if not isinstance(frames, slice):
            raise TypeError("keypoints are indexed by a slice of frames, for example keypoints[3:4]")
        return self._map(lambda array: array[frames])

    def person(self, index: int) -> Self:
        """Only person `index`, as Keypoints of one person."""
        if not 0 <= index < self.num_people:
            raise InputError(f"there is no person {index}; these keypoints hold {self.num_people}, counted from 0.")
        return self._map(lambda array: array[:, index : index + 1])

    def mirrored(self) -> Self:
        """Flip left to right: x becomes 1 - x, and left and right points change places."""
        flip = {
            name: getattr(self, name) * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32) for name in GROUPS
        }
        return dataclasses.replace(
            self,
            body=flip["body"][:, :, _MIRRORED_BODY],
            body_score=self.body_score[:, :, _MIRRORED_BODY],
            hands=flip["hands"][:, :, ::-1],
            hands_score=self.hands_score[:, :, ::-1],
            faces=flip["faces"][:, :, _MIRRORED_FACE],
            faces_score=self.faces_score[:, :, _MIRRORED_FACE],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join in time; the last part's fps counts, so that a still picture's pose can come first.

        Raises:
            InputError: no parts, or parts that differ in picture size or number of people.
        """
        if len({(part.width, part.height, part.num_people) for part in parts}) != 1:
            raise InputError("keypoints to be joined must share one picture size and one number of people.")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        return dataclasses.replace(parts[-1], **arrays)

    @classmethod
    @jaxtyped(typechecker=beartype)
    def from_coco(
        cls,
        points: Float[np.ndarray, "frames people 133 2"],
        scores: Float[np.ndarray, "frames people 133"],
        width: int,
        height: int,
        fps: float | int,
    ) -> "Keypoints":
        """Convert COCO-WholeBody points in pixels (17 body, 6 feet, 68 face, 21 left hand, 21 right hand).

        The neck is the middle of the shoulders, with score 1 if both exceed 0.3 and 0 otherwise (DWPose's rule). The
        feet are left out. Negative scores, which a SimCC head gives to points it did not find, become 0.
        """
        points = points / np.array([width, height])
        scores = np.maximum(scores, 0)
        body, body_score = points[..., _BODY_FROM_COCO, :], scores[..., _BODY_FROM_COCO]
        body[..., Body.NECK, :] = points[..., _COCO_SHOULDERS, :].mean(-2)
        body_score[..., Body.NECK] = (scores[..., _COCO_SHOULDERS] > _NECK_THRESHOLD).all(-1)
        people = points.shape[:2]
        return cls(
            body=body,
            body_score=body_score,
            hands=points[..., 91:, :].reshape(*people, 2, 21, 2),
            hands_score=scores[..., 91:].reshape(*people, 2, 21),
            faces=points[..., 23:91, :],
            faces_score=scores[..., 23:91],
            width=width,
            height=height,
            fps=fps,
        )

    def _map(self, function) -> Self:
        return dataclasses.replace(self, **{name: function(getattr(self, name)) for name in ARRAYS})
