"""Prepare a video's inputs: the cropped reference image, and the motion fitted to the person in it."""

import dataclasses
import logging
import math
import os

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.inference.job import DrawnFrames, Prepared, Report
from mimicmotion_jax.inference.motion import Motion, OpenedMotion, drawn_skeletons, frame_rate, open_motion
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.picture import Picture, crop_note, load_picture, local_path, picture_name
from mimicmotion_jax.inference.scenes import choose_frames, note_cuts
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.detect import Detector, detect_image, detect_video
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.jumps import find_jumps
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.options import DetectorOptions, PersonChoice
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.pose.select import choose_person, diagnose, fill_gaps, is_anybody_in, list_people
from mimicmotion_jax.runtime.assumptions import assume, collect_assumptions
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.cuts import CutDetector
from mimicmotion_jax.video.image import SIZE_MULTIPLE, Crop, crop_resize, target_size

logger = logging.getLogger(__name__)

_NOBODY = (
    "nobody was found in any of the {} frames; use a clearer view of the person or another detector, and instead of a "
    "drawn skeleton give the video that it was drawn from, or its keypoints."
)


class Preparer:
    """Turns images and motions into `Prepared`; keeps the pose detector, which is loaded when it is first needed.

    Args:
        size_multiple: required divisor of height and width, in pixels (`ModelConfig.size_multiple`).
    """

    def __init__(self, size_multiple: int = SIZE_MULTIPLE):
        self._size_multiple = size_multiple
        self._detectors: dict[tuple[str | None, ...], Detector] = {}

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
            prepared = self._prepare(image, motion, options, image_pose, progress)
        notes = (*assumptions, *prepared.report.notes)
        return dataclasses.replace(prepared, report=dataclasses.replace(prepared.report, notes=notes))

    def _prepare(
        self,
        image: Picture,
        motion: Motion,
        options: PipelineOptions,
        image_pose: str | os.PathLike[str] | Keypoints | None,
        progress: bool,
    ) -> Prepared:
        original = load_picture(image)
        rows, columns = original.shape[:2]
        if (skeletons := drawn_skeletons(motion, options)) is not None:
            return self._with_skeletons(original, skeletons, options)
        height, width = target_size(rows, columns, options.resolution, options.shape, self._size_multiple)
        note = crop_note(original.shape[:2], (height, width))
        if note is not None:
            logger.warning("%s: %s", picture_name(image), note)
        reference = self._reference(image, original, image_pose, (height, width), options)
        opened = open_motion(motion, options)
        wanted = choose_frames(opened, options, progress)
        found, cuts = self._motion(opened, wanted, options, progress)
        if not is_anybody_in(found):
            raise InputError(f"{opened.name}: {_NOBODY.format(found.num_frames)}")
        person = _select_person(opened.name, found, options.person, "person")
        note_cuts(opened, wanted, find_jumps(person, lasting=True) if cuts is None else cuts)
        diagnosis = diagnose(found, options.person)
        logger.info("%s: %s", opened.name, diagnosis.summary())
        followed = fill_gaps(person, options.gaps)
        if reference is None:
            # Nobody to align to: the picture alone says where the motion goes, and its first pose stands in.
            target = dataclasses.replace(followed[:1], width=width, height=height)
            aligned, alignment = align(followed, target, "none", options.smooth)
            reference = aligned[:1]
        else:
            aligned, alignment = align(followed, reference, options.align, options.smooth)
        logger.info("%s", alignment.summary())
        keypoints = Keypoints.concatenate([reference, aligned])
        return Prepared(
            image=crop_resize(original, height, width),
            poses=DrawnPoses(keypoints, height, width, options.draw_style),
            keypoints=aligned,
            fps=aligned.fps,
            options=options,
            reference=reference,
            report=Report(diagnosis, alignment, (note,) if note else ()),
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

    def _reference(
        self,
        image: Picture,
        original: UInt8[np.ndarray, "h w 3"],
        image_pose: str | os.PathLike[str] | Keypoints | None,
        size: tuple[int, int],
        options: PipelineOptions,
    ) -> Keypoints | None:
        """Detect the person in the picture as it will be cropped, at the picture's own resolution."""
        height, width = size
        if image_pose is not None:
            name = os.fspath(image_pose) if isinstance(image_pose, str | os.PathLike) else "image_pose"
            found = _crop_reference(image_pose, Crop.plan(original.shape[:2], size), original.shape[:2])
        else:
            name = picture_name(image)
            scale = max(1.0, min(original.shape[0] / height, original.shape[1] / width))
            cropped = crop_resize(original, round(height * scale), round(width * scale))
            found = detect_image(cropped, self._detector(options))
        found = dataclasses.replace(found, width=width, height=height)
        if is_anybody_in(found):
            return _select_person(name, found, options.reference_person, "reference_person")
        if options.align == "none":
            return None
        if image_pose is not None:
            raise InputError(f"nobody is to be seen in {name}; give other keypoints, or set align=none.")
        raise InputError(
            f"nobody was found in the {width}x{height} crop of {name}; use a clearer picture or another aspect, give "
            "its keypoints as image_pose, or set align=none."
        )

    def _motion(
        self, opened: OpenedMotion, wanted: range, options: PipelineOptions, progress: bool
    ) -> tuple[Keypoints, list[int] | None]:
        """Keypoints of everybody in the motion, at the output's frame rate, and where its pictures are cut."""
        if opened.keypoints is not None:
            return opened.keypoints_of(wanted), None
        assert opened.frames is not None
        cuts, fps = CutDetector(), opened.fps / wanted.step
        frames = cuts.watch(opened.frames(wanted))
        return detect_video(frames, self._detector(options), fps, len(wanted), progress), cuts.cuts()

    def _detector(self, options: DetectorOptions) -> Detector:
        key = (options.detector, options.person_model, options.pose_model)
        if key not in self._detectors:
            self._detectors[key] = options.load_detector()
        return self._detectors[key]


def _crop_reference(pose: str | os.PathLike[str] | Keypoints, crop: Crop, original: tuple[int, int]) -> Keypoints:
    """First frame of given keypoints in the crop; they are of the whole picture or, by their proportions, of the crop.

    Where both fit, they are the same; where neither does, people mean the picture.
    """
    height, width = original
    loaded = pose if isinstance(pose, Keypoints) else load_keypoints(local_path(pose), fallback_size=(width, height))
    found = loaded[:1]
    if _proportions_fit(found, crop.target) and not _proportions_fit(found, original):
        return found
    return crop_keypoints(found, crop)


def _proportions_fit(keypoints: Keypoints, size: tuple[int, int]) -> bool:
    """Return True if the keypoints' aspect ratio is that of `size` (height, width)."""
    return abs(math.log(keypoints.height / keypoints.width * size[1] / size[0])) < 0.01


def _select_person(name: str, keypoints: Keypoints, choice: PersonChoice, option: str) -> Keypoints:
    """Select a person; say whom, where `option` leaves it open which of several it is."""
    try:
        person = choose_person(keypoints, choice)
        selected = keypoints.person(person)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    others = list_people(keypoints)
    if len(others) > 1 and not isinstance(choice, int):
        assume(
            f"{name} shows {len(others)} people, from left to right {', '.join(map(str, others))}: {person}, the "
            f"{choice} one, is taken; {option} takes another."
        )
    return selected
