"""Preflight: what can be known about a video before it is generated, in seconds and without weights."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mimicmotion_jax import sharding
from mimicmotion_jax.inference.job import Prepared, Report
from mimicmotion_jax.inference.memory import MemoryPlan, Workload
from mimicmotion_jax.inference.motion import Motion
from mimicmotion_jax.inference.options import PipelineOptions, with_options
from mimicmotion_jax.inference.picture import Picture
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.inference.survey import Frame, Survey
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.pose.select import choose_person, list_people
from mimicmotion_jax.video.image import Crop

MAX_FRAMES = 120
"""Frames of a motion's pictures that are looked at; fewer than a video has, so that a long one takes seconds too."""

ALIGNMENTS: tuple[Literal["none", "affine", "limb"], ...] = ("none", "affine", "limb")
_KEPT_SURVEYS = 6
_FULL_MODEL_BYTES = {
    "unet": 3_050_000_000,
    "image_encoder": 1_264_000_000,
    "vae": 195_000_000,
    "pose_net": 10_000_000,
}  # in bfloat16
_SURVEY_OPTIONS = (
    *("resolution", "aspect", "height", "width", "num_frames", "start", "stride", "scenes", "motion_fps"),
    *("motion_size", "tolerate_truncation", "detector", "person_model", "pose_model"),
)
_SEEN = 0.3  # the score below which a point is not drawn
_THUMBNAIL = 360  # pixels of the short side of a kept frame
_LEAST_LOSS = 0.2  # seconds for which a hand must be unseen to count as lost


@dataclasses.dataclass(frozen=True)
class Part:
    """Confidence in a part of the body over time.

    Attributes:
        confidence: mean of its points' scores in each frame, 1 at most.
        seen: fraction of the frames in which most of its points are seen.
        lost: stretches (first and last second) in which they are not.
    """

    confidence: Float[np.ndarray, " frames"]
    seen: float
    lost: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Person:
    """One of the people in a picture.

    Attributes:
        number: value of the option that takes this person.
        box: left, top, right and bottom of the seen points, as fractions of the picture; None if not in this frame.
        seen: fraction of the frames that show this person.
    """

    number: int
    box: tuple[float, float, float, float] | None
    seen: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """The motion under one alignment.

    Attributes:
        prepared: inputs of the video, of the frames that were looked at.
        outside: fraction of the seen points of the body that lie outside the picture.
        outside_joint: the joint that does so most often, such as "left ankle"; empty if none does.
    """

    prepared: Prepared
    outside: float
    outside_joint: str


@dataclasses.dataclass(frozen=True)
class Preflight:
    """Findings about one video before it is generated.

    Attributes:
        survey: everybody in both inputs, and the frames that were looked at.
        options: all options.
        frames: thumbnails of these frames; empty for a motion without pictures.
        fits: the motion under each alignment; only "none" where the reference shows nobody.
        parts: confidence by part of the body: body, legs, face, left hand, right hand.
        people: people in the motion from left to right, in frame `people_frame`.
        people_frame: frame of `survey.found` that shows most people.
        taken: number of the person who is followed.
        cuts: seconds at which the motion is cut.
        kept: fraction of the reference image that the crop keeps.
        num_windows: windows of the video, each of which the UNet sees in every step.
        memory: bytes that an accelerator needs in bfloat16; None if unknown.
    """

    survey: Survey
    options: PipelineOptions
    frames: tuple[UInt8[np.ndarray, "h w 3"], ...]
    fits: Mapping[str, Fit]
    parts: Mapping[str, Part]
    people: tuple[Person, ...]
    people_frame: int
    taken: int
    cuts: tuple[float, ...]
    kept: float
    num_windows: int
    memory: int | None

    @property
    def report(self) -> Report:
        """Report of the chosen alignment."""
        return (self.fits.get(self.options.align) or self.fits["none"]).prepared.report

    @property
    def fps(self) -> float:
        """Frame rate of the video."""
        return self.survey.opened.fps / self.options.stride

    @property
    def problems(self) -> tuple[str, ...]:
        """Likely causes of a poor result, a clause each, most serious first."""
        found = list(self.report.pose.problems() if self.report.pose else [])
        chosen = self.fits.get(self.options.align) or self.fits["none"]
        if chosen.outside > 0.1:
            found.append(
                f"{chosen.outside:.0%} of the body's points leave the picture, the {chosen.outside_joint} most often: "
                "another alignment, aspect or picture may keep them in"
            )
        if self.cuts:
            found.append(f"the motion has {len(self.cuts) + 1} scenes: scenes=longest, first or a number takes one")
        if self.survey.note:
            found.append(self.survey.note.rstrip("."))
        return tuple(found)


class Checker:
    """Makes preflights; keeps the pose detector and the last surveys, so that another choice of person costs nothing.

    Args:
        model: sizes of the networks that will generate.
        max_frames: frames of a motion's pictures that are looked at; None looks at all.
    """

    def __init__(self, model: ModelConfig | None = None, max_frames: int | None = MAX_FRAMES):
        self._model = model or ModelConfig()
        self._max_frames = max_frames
        self._preparer = Preparer(self._model.size_multiple)
        self._surveys: dict[tuple[Any, ...], tuple[Survey, tuple[Frame, ...]]] = {}

    def __call__(
        self,
        image: Picture,
        motion: Motion,
        options: PipelineOptions,
        image_pose: str | os.PathLike[str] | Keypoints | None = None,
        progress: bool = True,
    ) -> Preflight:
        """Look at both inputs and try every alignment.

        Args:
            image: reference image.
            motion: driving motion that is not drawn yet.
            options: as for the video.
            image_pose: keypoints of the reference image; None detects them.
            progress: show bars.

        Raises:
            InputError: anything that would keep the video from being generated.
        """
        key = _survey_key(image, motion, options, image_pose)
        if key is None or key not in self._surveys:
            frames: list[Frame] = []

            def watch(frame: Frame) -> None:
                frames.append(_small(frame))

            survey = self._preparer.survey(image, motion, options, image_pose, progress, self._max_frames, watch)
            found = survey, tuple(frames)
        else:
            found = self._surveys.pop(key)
        if key is not None:
            self._surveys[key] = found
            while len(self._surveys) > _KEPT_SURVEYS:
                del self._surveys[next(iter(self._surveys))]
        return self.judge(found[0], options, found[1])

    def judge(self, survey: Survey, options: PipelineOptions, frames: tuple[Frame, ...] = ()) -> Preflight:
        """Judge what a survey found; options may differ from the survey's as for `Preparer.fit`.

        Raises:
            InputError: no such person, or windows that the model cannot have.
        """
        # Where the reference shows nobody, the motion stays where it is.
        names = ALIGNMENTS if survey.in_picture is not None else ALIGNMENTS[:1]
        fits = {name: _fit(self._preparer.fit(survey, with_options(options, {"align": name}))) for name in names}
        taken = choose_person(survey.found, options.person)
        person = survey.found.person(taken)
        people_frame = int((survey.found.body_score > _SEEN).any(-1).sum(-1).argmax())
        cuts = find_jumps(person, lasting=True) if survey.cuts is None else survey.cuts
        plan = options.plan(1 + survey.num_frames, self._model.window_size)
        return Preflight(
            survey=survey,
            options=options,
            frames=frames,
            fits=fits,
            parts=find_parts(person),
            people=_list_people(survey.found, people_frame),
            people_frame=people_frame,
            taken=taken,
            cuts=tuple(cut / survey.found.fps for cut in cuts),
            kept=_kept(survey),
            num_windows=plan.num_windows,
            memory=_estimate_memory(self._model, options, survey),
        )


def _survey_key(
    image: Picture, motion: Motion, options: PipelineOptions, image_pose: str | os.PathLike[str] | Keypoints | None
) -> tuple[Any, ...] | None:
    """Everything that a survey of files depends on; None for inputs in memory."""
    files = [path for path in (image, motion, image_pose) if path is not None]
    paths = [Path(path) for path in files if isinstance(path, str | os.PathLike)]
    if len(paths) < len(files) or not all(path.is_file() for path in paths):
        return None
    values = [getattr(options, name) for name in _SURVEY_OPTIONS]
    # Who is followed decides where keypoints are cut, and align=none admits a picture of nobody.
    chosen = (options.person if options.scenes != "all" else None, options.align == "none", image_pose is None)
    return (*((str(path), path.stat().st_mtime_ns) for path in paths), *map(str, values), *map(str, chosen))


def summarise(preflight: Preflight) -> dict[str, Any]:
    """Findings of a preflight as plain values, for JSON."""
    return {
        "problems": list(preflight.problems),
        "notes": list(preflight.report.notes),
        "frames": preflight.survey.num_frames,
        "frames_looked_at": len(preflight.survey.wanted),
        "fps": preflight.fps,
        "size": list(preflight.survey.size[::-1]),
        "kept_of_picture": preflight.kept,
        "windows": preflight.num_windows,
        "memory_bytes": preflight.memory,
        "cuts": list(preflight.cuts),
        "people": [dataclasses.asdict(person) for person in preflight.people],
        "person": preflight.taken,
        "parts": {
            name: {"seen": part.seen, "confidence": part.confidence.tolist(), "lost": part.lost}
            for name, part in preflight.parts.items()
        },
        "outside": {name: fit.outside for name, fit in preflight.fits.items()},
    }


def find_parts(person: Keypoints) -> dict[str, Part]:
    """Confidence over time in the body, legs, face and hands of one person."""
    body, hands, face = person.body_score[:, 0], person.hands_score[:, 0], person.faces_score[:, 0]
    legs = body[:, [Body.R_KNEE, Body.R_ANKLE, Body.L_KNEE, Body.L_ANKLE]]
    scores = {"body": body, "legs": legs, "face": face, "left hand": hands[:, 0], "right hand": hands[:, 1]}
    return {name: _part(points, person.fps) for name, points in scores.items()}


def _part(scores: Float[np.ndarray, "frames points"], fps: float) -> Part:
    seen = (scores > _SEEN).mean(-1) > 0.5
    runs = [(first / fps, last / fps) for first, last in _runs(~seen) if (last - first) / fps >= _LEAST_LOSS]
    return Part(np.minimum(scores, 1).mean(-1), float(seen.mean()), tuple(runs))


def _runs(mask: Bool[np.ndarray, " frames"]) -> list[tuple[int, int]]:
    """First frame of each run of True, and the frame after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _fit(prepared: Prepared) -> Fit:
    assert prepared.keypoints is not None
    points, seen = prepared.keypoints.body[:, 0], prepared.keypoints.body_score[:, 0] > _SEEN
    outside = seen & ((points < 0) | (points > 1)).any(-1)
    by_joint = outside.sum(0)
    joint = Body(int(by_joint.argmax())).name.lower() if by_joint.any() else ""
    name = joint.replace("r_", "right ").replace("l_", "left ")
    return Fit(prepared, float(outside.sum() / max(seen.sum(), 1)), name)


def _list_people(found: Keypoints, frame: int) -> tuple[Person, ...]:
    people = []
    for number in list_people(found):
        seen = found.body_score[:, number] > _SEEN  # [F, 18]
        points = found.body[frame, number][seen[frame]]
        box = None
        if len(points):
            left, top, right, bottom = (*points.min(0).tolist(), *points.max(0).tolist())
            box = (left, top, right, bottom)
        people.append(Person(number, box, float((seen.sum(-1) >= 3).mean())))
    return tuple(people)


def _estimate_memory(model: ModelConfig, options: PipelineOptions, survey: Survey) -> int | None:
    """Bytes that one accelerator needs in bfloat16; None for models of another size than the full one."""
    if model != ModelConfig(window_size=model.window_size):
        return None
    size = (1 + survey.num_frames, *survey.size)
    work = Workload(sharding.sampling_mesh(1), model, _FULL_MODEL_BYTES, 2, options, 1, *size)
    saves = options.memory == "low"
    return int(work.estimate(MemoryPlan(in_turn=saves and options.guidance_scale > 1, unload=saves)).peak)


def _kept(survey: Survey) -> float:
    crop = Crop.plan(survey.original.shape[:2], survey.size)
    return float(np.prod(crop.target) / np.prod(crop.resized))


def _small(frame: Frame) -> Frame:
    scale = _THUMBNAIL / min(frame.shape[:2])
    if scale >= 1:
        return frame.copy()
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
