"""Stretches of a video that are fit for training: one shot, of one person who moves and whose hands are seen."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from mimicmotion_jax.data.pieces import Recipe
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.select import choose_person, is_anybody_in, select_person
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.cuts import CutDetector, split_at

_SEEN = 0.3
_MIN_JOINTS = 3  # of 18, for a person
_BYSTANDER = 0.5  # sizes of the person, below which another one does not count


class UnfitError(InputError):
    """A video or stretch that is left out; `flaw` is the reason in a word or two, to be counted."""

    def __init__(self, flaw: str, reason: str):
        super().__init__(reason)
        self.flaw = flaw


def find_stretches(
    cuts: CutDetector, keypoints: Keypoints, recipe: Recipe
) -> Iterator[tuple[range, Keypoints | UnfitError]]:
    """Yield the stretches of a video in order, each with the keypoints of its person or the reason to leave it out.

    Stretches are the shots, a still picture by itself, and equal parts of what is longer than `max_seconds`.

    Args:
        cuts: has watched all frames.
        keypoints: of everybody in the video.
        recipe: options of the preparation.
    """
    num_frames = keypoints.num_frames
    stills = cuts.stills(recipe.max_still * keypoints.fps)
    bounds = {bound for still in stills for bound in (still.start, still.stop)} - {0, num_frames}
    if recipe.split_cuts:
        bounds |= set(cuts.cuts())
        bounds |= {bound for shot in split_at(sorted(bounds), num_frames) for bound in _jumps(keypoints, shot, recipe)}
    for shot in split_at(sorted(bounds), num_frames):
        for stretch in _equal_parts(shot, max(recipe.min_frames, int(recipe.max_seconds * keypoints.fps))):
            try:
                yield stretch, _fit(stretch, shot, shot in stills, keypoints, recipe)
            except UnfitError as error:
                yield stretch, error


def _jumps(keypoints: Keypoints, shot: range, recipe: Recipe) -> list[int]:
    inside = keypoints[shot.start : shot.stop]
    if not is_anybody_in(inside):
        return []
    return [shot.start + frame for frame in find_jumps(select_person(inside, recipe.person), lasting=True)]


def _equal_parts(shot: range, longest: int) -> list[range]:
    """Cut a shot into parts of at most `longest` frames; equal, so that the last one is no shorter than the others."""
    count = -(-len(shot) // longest)
    return [
        shot[start:stop] for start, stop in itertools.pairwise(len(shot) * part // count for part in range(count + 1))
    ]


def _fit(stretch: range, shot: range, is_still: bool, everybody: Keypoints, recipe: Recipe) -> Keypoints:
    """Keypoints of the person of the shot in a stretch of it.

    Raises:
        UnfitError: a stretch that the options leave out.
    """
    if len(stretch) < recipe.min_frames:
        raise UnfitError("short", f"it has {len(stretch)} frames, and min_frames is {recipe.min_frames}.")
    if is_still:
        seconds = len(shot) / everybody.fps
        raise UnfitError(
            "still picture", f"the picture stands still for {seconds:.1f} s, and max_still is {recipe.max_still:g}."
        )
    try:
        person = choose_person(everybody[shot.start : shot.stop], recipe.person)
    except InputError as error:
        raise UnfitError("nobody", str(error)) from None
    inside = everybody[stretch.start : stretch.stop]
    followed = inside.person(person)
    if (share := _crowded(inside, person)) > recipe.max_crowd:
        raise UnfitError(
            "several people",
            f"{share:.0%} of its frames show somebody else as well, and max_crowd is {recipe.max_crowd:.0%}.",
        )
    if (share := _hands_seen(followed)) < recipe.min_hands:
        raise UnfitError("hands", f"{share:.0%} of its frames show a hand, and min_hands is {recipe.min_hands:.0%}.")
    # Anybody may stand still for a moment.
    if len(stretch) >= everybody.fps and (motion := _motion(followed)) < recipe.min_motion:
        raise UnfitError(
            "motion", f"the person moves by {motion:.3f} body sizes, and min_motion is {recipe.min_motion:g}."
        )
    return followed


def _crowded(everybody: Keypoints, person: int) -> float:
    """Share of the frames that show somebody else of at least half the size of the person."""
    points, seen = _body(everybody)
    sizes = _sizes(points, seen) * (seen.sum(-1) >= _MIN_JOINTS)  # [F, P]
    others = np.delete(sizes, person, axis=1)
    return float(((others > 0) & (others >= _BYSTANDER * sizes[:, person, None])).any(1).mean())


def _hands_seen(person: Keypoints) -> float:
    """Share of the frames that show most of a hand."""
    return float(((person.hands_score > _SEEN).mean(-1) > 0.5).any((1, 2)).mean())


def _motion(person: Keypoints) -> float:
    """Standard deviation of the joints' places over the frames, in sizes of the body; 0 where there is none."""
    points, seen = (array[:, 0] for array in _body(person))
    tracked = seen.mean(0) > 0.5
    if not tracked.any():
        return 0.0
    points, seen = points[:, tracked], seen[:, tracked]
    spread = np.nanvar(np.where(seen[..., None], points, np.nan), axis=0).sum(-1)
    return float(np.sqrt(spread.mean())) / max(1.0, float(np.median(_sizes(points, seen)[seen.any(-1)])))


def _body(keypoints: Keypoints) -> tuple[Float[np.ndarray, "f p 18 2"], Bool[np.ndarray, "f p 18"]]:
    """Joints in pixels, and which of them are seen."""
    return keypoints.body * np.array([keypoints.width, keypoints.height], np.float32), keypoints.body_score > _SEEN


def _sizes(points: Float[np.ndarray, "*people joints 2"], seen: Bool[np.ndarray, "*people joints"]) -> np.ndarray:
    """Longer side of the box around the joints that are seen, in pixels; 0 where none is."""
    high = np.where(seen[..., None], points, -np.inf).max(-2)
    low = np.where(seen[..., None], points, np.inf).min(-2)
    return np.where(seen.any(-1), (high - low).max(-1), 0)
