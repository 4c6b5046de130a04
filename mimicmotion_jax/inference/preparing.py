"""Prepare a video's inputs: the cropped reference image, and the motion fitted to the person in it."""

import dataclasses
import logging
import os

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.inference.job import DrawnFrames, Prepared, Report
from mimicmotion_jax.inference.motion import Motion, drawn_skeletons, frame_rate, open_motion
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.picture import Picture, load_picture, local_path
from mimicmotion_jax.inference.scenes import note_cuts
from mimicmotion_jax.inference.survey import Survey, Surveyor, check_person
from mimicmotion_jax.inference.survey_cache import SurveyCache
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.options import PersonChoice
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.pose.select import diagnose, fill_gaps, list_people
from mimicmotion_jax.runtime.assumptions import assume, collect_assumptions
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import SIZE_MULTIPLE, crop_resize, target_size

logger = logging.getLogger(__name__)


class Preparer:
    """Turns images and motions into `Prepared`, in two parts: `survey` looks at both, `fit` brings them together.

    Args:
        size_multiple: required divisor of height and width, in pixels (`ModelConfig.size_multiple`).
        cache: surveys that were made already; None begins an empty one.

    Attributes:
        survey: finds everybody in both inputs; keeps the pose detector and the last surveys.
    """

    def __init__(self, size_multiple: int = SIZE_MULTIPLE, cache: SurveyCache | None = None):
        self._size_multiple = size_multiple
        self.survey = Surveyor(size_multiple, cache)

    def __call__(
        self,
        image: Picture,
        motion: Motion,
        options: PipelineOptions,
        image_pose: str | os.PathLike[str] | Keypoints | None = None,
        progress: bool = True,
    ) -> Prepared:
        """Read, crop, detect, choose the person, fill gaps, align.

        Raises:
            InputError: anything wrong with image, motion or pose.
        """
        with collect_assumptions() as assumptions:
            skeletons = drawn_skeletons(motion, options)
            if skeletons is not None:
                prepared = self._with_skeletons(load_picture(image), skeletons, options)
                return dataclasses.replace(prepared, report=Report(notes=tuple(assumptions)))
        survey = self.survey(image, motion, options, image_pose, progress)
        prepared = self.fit(survey, options)
        for part in (prepared.report.pose, prepared.report.alignment):
            if part is not None:
                logger.info("%s: %s", survey.opened.name, part.summary())
        return prepared

    def fit(self, survey: Survey, options: PipelineOptions) -> Prepared:
        """Choose the person in both inputs of a survey, fill gaps in the motion and align it.

        Args:
            survey: from `survey`, with options that differ in the choice of people, `gaps`, `align`, `smooth` and style
                of drawing at most.
            options: all options.

        Raises:
            InputError: no such person, or nobody to align to.
        """
        with collect_assumptions() as assumptions:
            prepared = self._fit(survey, options)
        notes = (*survey.assumptions, *assumptions, *((survey.note,) if survey.note else ()))
        return dataclasses.replace(prepared, report=dataclasses.replace(prepared.report, notes=notes))

    def _fit(self, survey: Survey, options: PipelineOptions) -> Prepared:
        (height, width), opened, wanted = survey.size, survey.opened, survey.wanted
        reference = None
        if survey.in_picture is not None:
            reference = _select_person(
                survey.pose_name, survey.in_picture, options.reference_person, "reference_person"
            )
        person = _select_person(opened.name, survey.found, options.person, "person")
        note_cuts(opened, wanted, find_jumps(person, lasting=True) if survey.cuts is None else survey.cuts)
        diagnosis = diagnose(survey.found, options.person)
        followed = fill_gaps(person, options.gaps)
        if reference is None:
            # Nobody to align to: the picture alone says where the motion goes, and its first pose stands in.
            target = dataclasses.replace(followed[:1], width=width, height=height)
            aligned, alignment = align(followed, target, "none", options.smooth)
            reference = aligned[:1]
        else:
            aligned, alignment = align(followed, reference, options.align, options.smooth)
        keypoints = Keypoints.concatenate([reference, aligned])
        return Prepared(
            image=crop_resize(survey.original, height, width),
            poses=DrawnPoses(keypoints, height, width, options.draw_style),
            keypoints=aligned,
            fps=aligned.fps,
            options=options,
            reference=reference,
            report=Report(diagnosis, alignment),
            sound=opened.sound,
            sound_start=wanted.start / opened.fps,
        )

    def check(
        self,
        image: Picture,
        motion: Motion,
        options: PipelineOptions,
        image_pose: str | os.PathLike[str] | Keypoints | None = None,
    ) -> None:
        """Open the inputs without detecting anything: for use before weights are loaded.

        Raises:
            InputError: a file that is missing or unreadable, or no such frames in it.
        """
        height, width = load_picture(image).shape[:2]
        if drawn_skeletons(motion, options) is None:
            open_motion(motion, options).select(options)
        if isinstance(image_pose, str | os.PathLike):
            load_keypoints(local_path(image_pose), fallback_size=(width, height))

    def _with_skeletons(
        self, pixels: UInt8[np.ndarray, "h w 3"], skeletons: DrawnFrames, options: PipelineOptions
    ) -> Prepared:
        """Skeletons are drawn in the reference's picture, so nothing is cropped, detected or aligned."""
        if len(skeletons.shape) != 4 or tuple(skeletons.shape[1:]) != pixels.shape:
            raise InputError(
                f"skeletons must be drawn at the size of the image, [F, {pixels.shape[0]}, {pixels.shape[1]}, 3], not "
                f"{list(skeletons.shape)}."
            )
        if skeletons.shape[0] < 1:
            raise InputError("the motion is empty; it needs at least the pose of the reference image.")
        target_size(*pixels.shape[:2], aspect=(pixels.shape[1], pixels.shape[0]), multiple=self._size_multiple)
        return Prepared(pixels, skeletons, None, frame_rate(options), options)


def _select_person(name: str, keypoints: Keypoints, choice: PersonChoice, option: str) -> Keypoints:
    """Select a person; say whom, where `option` leaves it open which of several it is."""
    person = check_person(name, keypoints, choice)
    others = list_people(keypoints)
    if len(others) > 1 and not isinstance(choice, int):
        assume(
            f"{name} shows {len(others)} people, from left to right {', '.join(map(str, others))}: {person}, the "
            f"{choice} one, is taken; {option} takes another."
        )
    return keypoints.person(person)
