"""Scenes of a motion: the shots between its cuts, and the one that is used."""

import dataclasses
from collections.abc import Sequence

from tqdm import tqdm

from mimicmotion_jax.inference.motion import OpenedMotion
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.select import is_anybody_in, select_person
from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.cuts import CutDetector, split_at

_MAX_TIMES = 8  # cuts that a sentence lists


def choose_frames(opened: OpenedMotion, options: PipelineOptions, progress: bool = True) -> range:
    """Frames of the motion that `start`, `stride`, `scenes` and `num_frames` choose.

    Raises:
        InputError: no such frames or scene.
    """
    wanted = opened.select(options)
    if options.scenes == "all":
        return wanted
    # A first scene need not be looked at beyond `num_frames`; another one may begin there.
    range_searched = (
        wanted if options.scenes == "first" else opened.select(dataclasses.replace(options, num_frames=None))
    )
    scenes = split_at(_cuts(opened, range_searched, options, progress), len(range_searched))
    number = scenes.index(max(scenes, key=len)) if options.scenes == "longest" else options.scenes
    number = 0 if number == "first" else number
    if number >= len(scenes):
        raise InputError(
            f"{opened.name} has {len(scenes)} scenes from start={options.start:g} on, counted from 0; there is no "
            f"scenes={number}."
        )
    scene = scenes[number]
    chosen = range_searched[scene.start : scene.stop]
    if len(scenes) > 1:
        assume(
            f"{opened.name}: scene {number}, from {_seconds(opened, chosen.start)} to {_seconds(opened, chosen.stop)}, "
            f"is used of {len(scenes)}; scenes chooses."
        )
    return chosen[: options.num_frames]


def note_cuts(opened: OpenedMotion, wanted: range, cuts: Sequence[int]) -> None:
    """Put into the report where a motion that is used with its cuts has them; `cuts` count in `wanted`."""
    if cuts:
        times = [_seconds(opened, wanted[cut]) for cut in cuts[:_MAX_TIMES]]
        more = f" and {len(cuts) - _MAX_TIMES} more" if len(cuts) > _MAX_TIMES else ""
        assume(
            f"{opened.name} is cut at {', '.join(times)}{more}: its {len(cuts) + 1} scenes are used as one motion; "
            "scenes=first, scenes=longest or a number from 0 takes one of them."
        )


def _cuts(opened: OpenedMotion, wanted: range, options: PipelineOptions, progress: bool) -> list[int]:
    if opened.keypoints is not None:
        keypoints = opened.keypoints_of(wanted)
        try:
            return (
                find_jumps(select_person(keypoints, options.person), lasting=True) if is_anybody_in(keypoints) else []
            )
        except InputError as error:
            raise InputError(f"{opened.name}: {error}") from None
    assert opened.frames is not None
    detector = CutDetector()
    watched = detector.watch(opened.frames(wanted))
    for _ in tqdm(watched, "scenes", total=len(wanted), unit="frame", disable=not progress):
        pass
    return detector.cuts()


def _seconds(opened: OpenedMotion, frame: int) -> str:
    return f"{min(frame, opened.num_frames) / opened.fps:.2f} s"
