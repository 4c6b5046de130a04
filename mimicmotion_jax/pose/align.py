"""Bring a driving motion into the reference's picture and onto the reference's body.

`affine` is the official release's map, one scale and shift for the clip; `limb` gives every limb the reference's length
(paper appendix D, see `limbs`); `none` only lays the driver's picture over the reference's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from beartype import beartype

from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.pose.layout import from_table, to_table
from mimicmotion_jax.pose.limbs import SEEN, map_limbs
from mimicmotion_jax.pose.smooth import one_euro
from mimicmotion_jax.runtime.errors import InputError

# The joints of the official regression: all but the arms, which move most.
_AFFINE_JOINTS = [joint for joint in Body if joint not in (3, 4, 6, 7)]
# Least height, of the picture's, over which the driver's joints must spread for a line through them to mean anything,
# and the scales beyond which it does not.
_MIN_SPREAD = 0.01
_MIN_SCALE, _MAX_SCALE = 0.05, 20.0


@dataclasses.dataclass(frozen=True)
class AlignmentReport:
    """Result of an alignment, for the log.

    Attributes:
        method: none, affine or limb.
        ratios: Reference / driver in picture heights, by kind of limb; for `affine` and `none` the scales of the
            normalised `x` and `y`.
        shift: Added to x and y, normalised to the reference's picture.
        notes: Limitations, one clause each.
    """

    method: str
    ratios: Mapping[str, float]
    shift: tuple[float, float]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Describe the alignment in one line."""
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in self.ratios.items())
        notes = "".join(f"; {note}" for note in self.notes)
        return f"alignment {self.method}: {ratios}; shift {self.shift[0]:+.3f} {self.shift[1]:+.3f}{notes}"


@beartype
def align(
    driving: Keypoints, reference: Keypoints, method: Literal["none", "affine", "limb"], smooth: bool = False
) -> tuple[Keypoints, AlignmentReport]:
    """Move a driving motion into the reference's picture.

    Args:
        driving: One person over F frames.
        reference: The person of the reference picture, one frame.
        method: See the module. "none" scales the driver's picture until it covers the reference's and centres it, as
            the reference picture itself is fitted to the model's size.
        smooth: Take jitter out with a one-euro filter (`smooth.one_euro`).

    Returns:
        The motion, with the picture size of `reference` and the scores and frame rate of `driving`; and the report.

    Raises:
        InputError: more than one person, more than one frame of the reference, or, unless the method is "none", nobody
            to be seen in either.
    """
    if driving.num_people != 1 or reference.num_people != 1 or reference.num_frames != 1:
        raise InputError(
            f"alignment takes one person in one reference picture and one person who drives, not "
            f"{reference.num_people} in {reference.num_frames} pictures and {driving.num_people}; select one first."
        )
    if method != "none":
        _require_somebody(reference, "the reference picture; use a picture that shows the person clearly")
        _require_somebody(driving, "the driving motion; use another video or keypoint file")
    aligned, report = {"none": _cover, "affine": _affine, "limb": _limb}[method](driving, reference)
    if smooth:
        points, scores = _table(aligned)
        aligned = _from_table(one_euro(points, scores > 0, aligned.fps), aligned, aligned)
    return aligned, report


def _require_somebody(keypoints: Keypoints, where: str) -> None:
    if not any((score > SEEN).any() for score in (keypoints.body_score, keypoints.hands_score, keypoints.faces_score)):
        raise InputError(f"nobody is to be seen in {where}.")


def _cover(driving: Keypoints, reference: Keypoints) -> tuple[Keypoints, AlignmentReport]:
    scale = _cover_scale(driving, reference)
    shift = (1 - scale) / 2
    return _mapped(driving, reference, scale, shift), _linear_report("none", scale, shift)


def _affine(driving: Keypoints, reference: Keypoints) -> tuple[Keypoints, AlignmentReport]:
    """The official release's regression of all of the driver's joints on the reference's, over all frames at once.

    Joints that a frame lacks (score 0) are left out; the official release has no such joints. Where the regression is
    not meaningful, the scale is that of "none", and the joints are brought together on average.
    """
    joints = [joint for joint in _AFFINE_JOINTS if reference.body_score[0, 0, joint] > SEEN]
    seen = driving.body_score[:, 0, joints] > 0  # [F, J]
    source = driving.body[:, 0, joints].astype(np.float64)[seen]  # [N, 2]
    target = np.broadcast_to(reference.body[0, 0, joints].astype(np.float64), (*seen.shape, 2))[seen]
    scale, notes = _cover_scale(driving, reference), ()
    spread = np.ptp(source[:, 1]) if len(source) else 0.0
    slope = np.polyfit(source[:, 1], target[:, 1], 1)[0] if spread > _MIN_SPREAD else 0.0
    if _MIN_SCALE < slope < _MAX_SCALE:
        isotropic = (driving.width / driving.height) / (reference.width / reference.height)
        scale = slope * np.array([isotropic, 1])
    else:
        notes = ("too few joints in common to measure the scale, so the picture's was kept",)
    if len(source):
        shift = (target - source * scale).mean(0)
    else:
        shift = (1 - scale) / 2
        notes = ("no joint in common, so the motion stays where it is in its picture",)
    return _mapped(driving, reference, scale, shift), _linear_report("affine", scale, shift, notes)


def _limb(driving: Keypoints, reference: Keypoints) -> tuple[Keypoints, AlignmentReport]:
    driving_points, driving_scores = _table(driving)
    (reference_points,), (reference_scores,) = _table(reference)
    mapped = map_limbs(driving_points, driving_scores, reference_points, reference_scores)
    shift = (mapped.shift[0] * reference.height / reference.width, mapped.shift[1])
    report = AlignmentReport("limb", mapped.ratios, shift, mapped.notes)
    return _from_table(mapped.points, driving, reference), report


def _cover_scale(driving: Keypoints, reference: Keypoints) -> np.ndarray:
    """Scale of normalised x and y that lays the driver's picture over all of the reference's, undistorted."""
    ratio = np.array([driving.width / reference.width, driving.height / reference.height])
    return ratio / ratio.min()


def _mapped(driving: Keypoints, reference: Keypoints, scale: np.ndarray, shift: np.ndarray) -> Keypoints:
    moved = {name: getattr(driving, name) * scale + shift for name in ("body", "hands", "faces")}
    return dataclasses.replace(driving, **moved, width=reference.width, height=reference.height)


def _linear_report(method: str, scale: np.ndarray, shift: np.ndarray, notes: tuple[str, ...] = ()) -> AlignmentReport:
    ratios = {"x": float(scale[0]), "y": float(scale[1])}
    return AlignmentReport(method, ratios, (float(shift[0]), float(shift[1])), notes)


def _table(keypoints: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """All points of the one person [F, 128, 2] in picture heights, and their scores [F, 128]."""
    points, scores = to_table(keypoints)
    return points * (keypoints.width / keypoints.height, 1), scores


def _from_table(points: np.ndarray, motion: Keypoints, picture: Keypoints) -> Keypoints:
    """`motion` with the points of a table that is in heights of `picture`."""
    moved = from_table(motion, points / (picture.width / picture.height, 1))
    return dataclasses.replace(moved, width=picture.width, height=picture.height)
