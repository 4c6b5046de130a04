"""From a job's files to what the device is given: the picture, and the motion in that picture."""

import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.inference.job import Job, Prepared
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.inference.outputs import check_inputs_stay, check_outputs, open_output
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.detect import Detector, detect_image, detect_video
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import MAX_FPS, MIN_FPS, Keypoints
from mimicmotion_jax.pose.openpose import SizeMissingError
from mimicmotion_jax.pose.options import PersonChoice
from mimicmotion_jax.pose.select import diagnose, fill_gaps, is_anybody_in, select_person
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import VideoReader, open_video
from mimicmotion_jax.video.image import SIZE_MULTIPLE, Crop, crop_resize, read_image, target_size

logger = logging.getLogger(__name__)

_NOBODY = (
    "nobody was found in any of the {} frames; use a clearer view of the person or another detector, and instead of a "
    "drawn skeleton give the video that it was drawn from, or its keypoints."
)


class Preparer:
    """Turns jobs into `Prepared`; keeps the pose detector, which is loaded when it is first needed.

    Args:
        config: what to do with pictures and motions.
        size_multiple: what the sides of pictures must be multiples of (`ModelConfig.size_multiple`).
    """

    def __init__(self, config: GenerateConfig, size_multiple: int = SIZE_MULTIPLE):
        self.config, self._size_multiple = config, size_multiple
        self._detector: Detector | None = None

    def __call__(self, job: Job, progress: bool = True) -> Prepared:
        """Read, crop, detect, choose the person, fill gaps, align.

        Raises:
            InputError: anything wrong with the job's files; a place for the output that cannot be written to.
        """
        config = self.config
        check_outputs(job.output, config)
        check_inputs_stay(job, config)
        original = read_image(job.image)
        aspect = config.size or config.aspect
        height, width = target_size(*original.shape[:2], config.resolution, aspect, self._size_multiple)
        _warn_of_crop(job.image, original.shape[:2], (height, width))
        reference = self._reference(job, original, height, width)
        motion, sound = self._motion(job, progress)
        logger.info("%s: %s", job.motion, diagnose(motion).summary())
        if not is_anybody_in(motion):
            raise InputError(f"{job.motion}: {_NOBODY.format(motion.num_frames)}")
        motion = fill_gaps(_select_person(job.motion, motion, config.person), config.gaps)
        if reference is None:
            # Nobody to align to: the picture alone says where the motion goes, and its first pose stands in.
            target = dataclasses.replace(motion[:1], width=width, height=height)
            motion, report = align(motion, target, "none", config.smooth)
            reference = motion[:1]
        else:
            motion, report = align(motion, reference, config.align, config.smooth)
        logger.info("%s", report.summary())
        prepared = Prepared(
            image=crop_resize(original, height, width),
            keypoints=Keypoints.concatenate([reference, motion]),
            output=job.output,
            seed=config.seed if job.seed is None else job.seed,
            sound=sound,
            sound_start=config.start,
        )
        open_output(prepared, config)  # checks what it is given, writes nothing: better now than after the denoising
        return prepared

    def check(self, job: Job) -> None:
        """Look at a job's files without detecting anything: for use before weights are loaded.

        Raises:
            InputError: a file that is missing or unreadable, no such frames in it, an output that cannot be written.
        """
        check_outputs(job.output, self.config)
        check_inputs_stay(job, self.config)
        height, width = read_image(job.image).shape[:2]
        self._open_motion(job)
        if job.image_pose is not None:
            load_keypoints(job.image_pose, fallback_size=(width, height))

    def _reference(self, job: Job, original: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> Keypoints | None:
        """The pose of the person in the picture as it will be cropped, found at the picture's own resolution."""
        if job.image_pose is not None:
            found = _load_reference(job.image_pose, Crop.plan(original.shape[:2], (height, width)), original.shape[:2])
        else:
            scale = max(1.0, min(original.shape[0] / height, original.shape[1] / width))
            cropped = crop_resize(original, round(height * scale), round(width * scale))
            found = detect_image(cropped, self._load_detector())
        found = dataclasses.replace(found, width=width, height=height)
        if is_anybody_in(found):
            return _select_person(job.image_pose or job.image, found, self.config.reference_person)
        if self.config.align == "none":
            return None
        if job.image_pose is not None:
            raise InputError(f"nobody is to be seen in {job.image_pose}; give other keypoints, or say align=none.")
        raise InputError(
            f"nobody was found in the {width}x{height} crop of {job.image}; use a clearer picture or another aspect, "
            "give its keypoints with --image-pose, or say align=none."
        )

    def _motion(self, job: Job, progress: bool) -> tuple[Keypoints, Path | None]:
        """Keypoints of the motion at the output's frame rate, and where its sound is."""
        source, wanted = self._open_motion(job)
        fps = source.fps / wanted.step
        if isinstance(source, Keypoints):
            return dataclasses.replace(source[wanted.start : wanted.stop : wanted.step], fps=fps), None
        frames = source.frames(wanted.step, wanted.start, wanted.stop)
        found = detect_video(frames, self._load_detector(), fps, len(wanted), progress)
        return found, job.motion if self.config.audio and source.has_audio else None

    def _open_motion(self, job: Job) -> tuple[Keypoints | VideoReader, range]:
        """The motion as it is given, and which of its frames are wanted."""
        source = self._load_motion(job) if is_keypoints(job.motion) else open_video(job.motion)
        return source, _wanted(self.config, source.fps, source.num_frames, job.motion)

    def _load_motion(self, job: Job) -> Keypoints:
        try:
            return load_keypoints(job.motion, fallback_size=job.motion_size or self.config.motion_size)
        except SizeMissingError:
            raise InputError(
                f"{job.motion} gives pixels but not the size of the video they were found in; set "
                "motion_size=[width,height]."
            ) from None

    def _load_detector(self) -> Detector:
        if self._detector is None:
            self._detector = self.config.load_detector()
        return self._detector


def _load_reference(path: Path, crop: Crop, original: tuple[int, int]) -> Keypoints:
    """The first frame of a file in the crop; its keypoints are of the whole picture or, by its proportions, the crop.

    Where both fit, they are the same; where neither does, people mean the picture.
    """
    height, width = original
    found = load_keypoints(path, fallback_size=(width, height))[:1]
    if _proportions_fit(found, crop.target) and not _proportions_fit(found, original):
        return found
    return crop_keypoints(found, crop)


def _proportions_fit(keypoints: Keypoints, size: tuple[int, int]) -> bool:
    """Whether they are of a picture of this size (height, width) or an enlarged one."""
    return abs(math.log(keypoints.height / keypoints.width * size[1] / size[0])) < 0.01


def _select_person(path: Path, keypoints: Keypoints, choice: PersonChoice) -> Keypoints:
    try:
        return select_person(keypoints, choice)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _warn_of_crop(path: Path, original: tuple[int, int], size: tuple[int, int]) -> None:
    """Say when much of the picture falls away, for example a square one's head in landscape."""
    ratio = (original[0] / original[1]) / (size[0] / size[1])
    kept = min(ratio, 1 / ratio)
    if kept < 0.7:
        logger.warning(
            "%s: only %.0f %% of the picture fits into %dx%d, the rest is cropped; aspect=portrait, landscape or "
            "square may keep more.",
            path,
            100 * kept,
            size[1],
            size[0],
        )


def is_keypoints(path: Path) -> bool:
    """Whether a motion is given as keypoints rather than as a video."""
    return path.suffix.lower() in (".npz", ".json") or (path.is_dir() and any(path.glob("*_keypoints.json")))


def _wanted(config: GenerateConfig, fps: float, num_frames: int, path: Path) -> range:
    """The frames that `start`, `stride` and `max_frames` choose."""
    if num_frames == 0:
        raise InputError(f"{path} holds no frames; use another motion.")
    first = round(config.start * fps)
    if first >= num_frames:
        raise InputError(f"start={config.start:g} lies behind the end of {path}, at {num_frames / fps:.2f} s.")
    if not MIN_FPS <= fps / config.stride <= MAX_FPS:
        raise InputError(
            f"{path} has {fps:g} frames per second, which with stride={config.stride} gives {fps / config.stride:g}; "
            f"a video may have {MIN_FPS:g} to {MAX_FPS:g}."
        )
    last = num_frames if config.max_frames is None else min(num_frames, first + config.max_frames * config.stride)
    return range(first, last, config.stride)
