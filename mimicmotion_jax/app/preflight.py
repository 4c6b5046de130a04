"""Preflight: what can be known about a video before it is generated, in seconds and without weights."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from mimicmotion_jax import sharding
from mimicmotion_jax.app.findings import SEEN, Fit, Part, Person, find_parts, find_people, judge_fit
from mimicmotion_jax.inference.job import Report
from mimicmotion_jax.inference.memory import MemoryPlan, Workload
from mimicmotion_jax.inference.motion import Motion
from mimicmotion_jax.inference.options import PipelineOptions, with_options
from mimicmotion_jax.inference.picture import Picture
from mimicmotion_jax.inference.preparing import Preparer
from mimicmotion_jax.inference.survey import Survey
from mimicmotion_jax.inference.survey_cache import SurveyCache
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.select import choose_person
from mimicmotion_jax.video.image import Crop

MAX_FRAMES = 120
"""Frames of a motion's pictures that are looked at; fewer than a video has, so that a long one takes seconds too."""

ALIGNMENTS: tuple[Literal["none", "affine", "limb"], ...] = ("none", "affine", "limb")
_LONG = 1500  # frames: a minute at 25 per second
_FULL_MODEL_BYTES = {
    "unet": 3_050_000_000,
    "image_encoder": 1_264_000_000,
    "vae": 195_000_000,
    "pose_net": 10_000_000,
}  # in bfloat16


@dataclasses.dataclass(frozen=True)
class Preflight:
    """Findings about one video before it is generated.

    Attributes:
        survey: everybody in both inputs, and the frames that were looked at.
        options: all options.
        fits: the motion under each alignment; only "none" where the reference shows nobody.
        parts: confidence by part of the body: body, legs, face, left hand, right hand.
        people: people in the motion from left to right, in frame `people_frame`.
        people_frame: frame of `survey.found` that shows most people.
        taken: number of the person who is followed.
        cuts: seconds at which the motion is cut.
        kept: fraction of the reference image that the crop keeps.
        num_windows: windows of the video, each of which the UNet sees in every step.
        memory: bytes that an accelerator needs in bfloat16; None if unknown.
        longest: most frames that will be generated; None if there is no limit.
    """

    survey: Survey
    options: PipelineOptions
    fits: Mapping[str, Fit]
    parts: Mapping[str, Part]
    people: tuple[Person, ...]
    people_frame: int
    taken: int
    cuts: tuple[float, ...]
    kept: float
    num_windows: int
    memory: int | None
    longest: int | None = None

    @property
    def chosen(self) -> Fit:
        """The motion under the alignment that the options ask for."""
        return self.fits.get(self.options.align) or self.fits["none"]

    @property
    def report(self) -> Report:
        """Report of the chosen alignment."""
        return self.chosen.prepared.report

    @property
    def fps(self) -> float:
        """Frame rate of the video."""
        return self.survey.opened.fps / self.options.stride

    @property
    def problems(self) -> tuple[str, ...]:
        """Likely causes of a poor result, a clause each, most serious first."""
        found = list(self.report.pose.problems() if self.report.pose else [])
        if self.chosen.outside > 0.1:
            found.append(
                f"{self.chosen.outside:.0%} of the body's points leave the picture, the {self.chosen.outside_joint} "
                "most often: another alignment, aspect or picture may keep them in"
            )
        if self.cuts:
            found.append(f"the motion has {len(self.cuts) + 1} scenes: scenes=longest, first or a number takes one")
        too_long = too_long_message(self.survey.num_frames, self.longest)
        if too_long is not None:
            found.insert(0, too_long)
        elif self.survey.num_frames > _LONG:
            found.append(f"the video will have {self.survey.num_frames:,} frames: num_frames and start take a part")
        if self.survey.note:
            found.append(self.survey.note.rstrip("."))
        return tuple(found)


class Checker:
    """Makes preflights; keeps the pose detector and the last surveys, so that another choice of person costs nothing.

    Args:
        model: sizes of the networks that will generate.
        max_frames: frames of a motion's pictures that are looked at.
        longest: most frames that will be generated; None if there is no limit.
        cache: surveys that are shared with a pipeline: what a preflight has detected is not detected again.
    """

    def __init__(
        self,
        model: ModelConfig | None = None,
        max_frames: int = MAX_FRAMES,
        longest: int | None = None,
        cache: SurveyCache | None = None,
    ):
        self._model = model or ModelConfig()
        self._max_frames, self._longest = max_frames, longest
        self._preparer = Preparer(self._model.size_multiple, cache)

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
        survey = self._preparer.survey(image, motion, options, image_pose, progress, self._max_frames)
        return self.judge(survey, options)

    def judge(self, survey: Survey, options: PipelineOptions) -> Preflight:
        """Judge what a survey found; options may differ from the survey's as for `Preparer.fit`.

        Raises:
            InputError: no such person, or windows that the model cannot have.
        """
        # Where the reference shows nobody, the motion stays where it is.
        names = ALIGNMENTS if survey.in_picture is not None else ALIGNMENTS[:1]
        fits = {name: judge_fit(self._preparer.fit(survey, with_options(options, {"align": name}))) for name in names}
        taken = choose_person(survey.found, options.person)
        person = survey.found.person(taken)
        people_frame = int((survey.found.body_score > SEEN).any(-1).sum(-1).argmax())
        cuts = find_jumps(person, lasting=True) if survey.cuts is None else survey.cuts
        plan = options.plan(1 + survey.num_frames, self._model.window_size)
        return Preflight(
            survey=survey,
            options=options,
            fits=fits,
            parts=find_parts(person),
            people=find_people(survey.found, people_frame),
            people_frame=people_frame,
            taken=taken,
            cuts=tuple(cut / survey.found.fps for cut in cuts),
            kept=_kept(survey),
            num_windows=plan.num_windows,
            memory=_estimate_memory(self._model, options, survey),
            longest=self._longest,
        )


def too_long_message(num_frames: int, longest: int | None) -> str | None:
    """Say that a video is longer than what will be generated; None if it is not."""
    if longest is None or num_frames <= longest:
        return None
    return (
        f"the video would have {num_frames:,} frames, and {longest:,} is the most that is made here: set num_frames, "
        "and start where it begins"
    )


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


def _estimate_memory(model: ModelConfig, options: PipelineOptions, survey: Survey) -> int | None:
    """Bytes that one accelerator needs in bfloat16; None for models of another size than the full one."""
    if model != ModelConfig(window_size=model.window_size):
        return None
    size = (1 + survey.num_frames, *survey.size)
    work = Workload(sharding.sampling_mesh(1), model, _FULL_MODEL_BYTES, 2, options, 1, *size)
    saves = options.memory == "low"
    return int(work.estimate(MemoryPlan(in_turn=saves and options.guided, unload=saves)).peak)


def _kept(survey: Survey) -> float:
    crop = Crop.plan(survey.original.shape[:2], survey.size)
    return float(np.prod(crop.target) / np.prod(crop.resized))
