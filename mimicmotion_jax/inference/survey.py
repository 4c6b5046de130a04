"""Survey of a video's inputs: everybody in the reference image and in the motion, and the motion's cuts."""

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from mimicmotion_jax.inference.motion import Motion, OpenedMotion, open_motion
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.inference.picture import Picture, crop_note, load_picture, local_path, picture_name
from mimicmotion_jax.inference.scenes import choose_frames
from mimicmotion_jax.inference.survey_cache import SurveyCache, survey_key
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.detect import Detector, detect_image, detect_video
from mimicmotion_jax.pose.files import load_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.options import DetectorOptions, PersonChoice
from mimicmotion_jax.pose.select import choose_person, is_anybody_in
from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.cuts import CutDetector
from mimicmotion_jax.video.image import Crop, crop_resize, target_size

logger = logging.getLogger(__name__)

Frame = UInt8[np.ndarray, "height width 3"]
Watch = Callable[[int, int], None]

_THUMBNAIL = 360  # pixels of the short side of a kept frame
_SPREAD = 15  # frames that are decoded for each one that is looked at, where `max_frames` bounds these
_NOBODY = (
    "nobody was found in any of the {} frames; use a clearer view of the person or another detector, and instead of a "
    "drawn skeleton give the video that it was drawn from, or its keypoints."
)


@dataclasses.dataclass(frozen=True)
class Survey:
    """Everybody in the reference image and in the motion; nobody is chosen and nothing aligned yet.

    Attributes:
        original: reference image as it was given.
        size: height and width of the video.
        image_name: name of the reference image, for messages.
        pose_name: name of what `in_picture` comes from: the image, or the keypoints given for it.
        in_picture: everybody in the cropped image, one frame; None if nobody is there.
        opened: the motion.
        wanted: frames of the motion that were looked at.
        num_frames: frames of the video that the options ask for; more than `wanted` has where only some were looked at.
        found: everybody in the motion, at the frame rate of `wanted`.
        cuts: places in `wanted` at which the motion's pictures are cut; None for a motion without pictures.
        note: warning about the crop of the image.
        is_complete: every frame that the options ask for was looked at.
        frames: thumbnails of the frames in `wanted`; empty for a motion without pictures, or without `max_frames`.
        assumptions: what the files did not say, a sentence each.
    """

    original: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]
    image_name: str
    pose_name: str
    in_picture: Keypoints | None
    opened: OpenedMotion
    wanted: range
    num_frames: int
    found: Keypoints
    cuts: tuple[int, ...] | None
    note: str | None = None
    is_complete: bool = True
    frames: tuple[Frame, ...] = ()
    assumptions: tuple[str, ...] = ()


class Surveyor:
    """Finds everybody in images and motions; keeps the pose detector, which is loaded when it is first needed.

    Args:
        size_multiple: required divisor of height and width, in pixels (`ModelConfig.size_multiple`).
        cache: surveys of files that were made already; None begins an empty one.

    Attributes:
        cache: surveys that were made.
    """

    def __init__(self, size_multiple: int, cache: SurveyCache | None = None):
        self._size_multiple = size_multiple
        self.cache = SurveyCache() if cache is None else cache
        self._detectors: dict[tuple[str | None, ...], Detector] = {}

    def __call__(
        self,
        image: Picture,
        motion: Motion,
        options: PipelineOptions,
        image_pose: str | os.PathLike[str] | Keypoints | None = None,
        progress: bool = True,
        max_frames: int | None = None,
        watch: Watch | None = None,
    ) -> Survey:
        """Read both inputs and detect poses in them, or find that in the cache.

        Args:
            image: reference image.
            motion: driving motion that is not drawn yet.
            options: size of the video, detector, and frames of the motion.
            image_pose: keypoints of the reference image; None detects them.
            progress: show bars.
            max_frames: look at so many frames at most, spread over the first 15 times as many, and keep thumbnails of
                them; None looks at all.
            watch: called with the number of frames looked at and that of all, for a motion that has pictures; what it
                raises ends the survey.

        Raises:
            InputError: an input that cannot be read, or nobody to be seen.
        """
        key = survey_key(image, motion, options, image_pose)
        kept = self.cache.get(key, max_frames)
        if kept is not None:
            return kept
        with collect_assumptions() as assumptions:
            survey = self._survey(image, motion, options, image_pose, progress, max_frames, watch)
        survey = dataclasses.replace(survey, assumptions=tuple(assumptions))
        self.cache.put(key, max_frames, survey)
        return survey

    def _survey(
        self,
        image: Picture,
        motion: Motion,
        options: PipelineOptions,
        image_pose: str | os.PathLike[str] | Keypoints | None,
        progress: bool,
        max_frames: int | None,
        watch: Watch | None,
    ) -> Survey:
        original, name = load_picture(image), picture_name(image)
        rows, columns = original.shape[:2]
        size = target_size(rows, columns, options.resolution, options.shape, self._size_multiple)
        note = crop_note((rows, columns), size)
        if note is not None:
            logger.warning("%s: %s", name, note)
        pose_name = name
        if image_pose is not None:
            pose_name = os.fspath(image_pose) if isinstance(image_pose, str | os.PathLike) else "image_pose"
        in_picture = self._people_in_picture(name, original, image_pose, pose_name, size, options)
        if in_picture is not None:
            check_person(pose_name, in_picture, options.reference_person)
        whole = opened = open_motion(motion, options)
        total = opened.select(options)
        if max_frames is not None and opened.frames is not None:
            last = total.start + max_frames * max(_SPREAD, options.stride)
            if last < opened.num_frames:
                opened = dataclasses.replace(opened, num_frames=last)
        wanted = choose_frames(opened, options, progress)
        num_frames = len(total if options.scenes == "all" else wanted)
        if max_frames is not None and opened.frames is not None:
            wanted = wanted[:: -(-len(wanted) // max_frames)]
        is_complete = len(wanted) == num_frames and (options.scenes == "all" or opened is whole)
        frames: list[Frame] | None = None if max_frames is None else []
        found, cuts = self._people_in_motion(opened, wanted, options, progress, frames, watch)
        if not is_anybody_in(found):
            raise InputError(f"{opened.name}: {_NOBODY.format(found.num_frames)}")
        return Survey(
            original, size, name, pose_name, in_picture, opened, wanted, num_frames, found, cuts, note, is_complete,
            tuple(frames or ()),
        )  # fmt: skip

    def _people_in_picture(
        self,
        name: str,
        original: UInt8[np.ndarray, "h w 3"],
        image_pose: str | os.PathLike[str] | Keypoints | None,
        pose_name: str,
        size: tuple[int, int],
        options: PipelineOptions,
    ) -> Keypoints | None:
        """Detect everybody in the picture as it will be cropped, at the picture's own resolution."""
        height, width = size
        if image_pose is not None:
            found = _crop_reference(image_pose, Crop.plan(original.shape[:2], size), original.shape[:2])
        else:
            scale = max(1.0, min(original.shape[0] / height, original.shape[1] / width))
            cropped = crop_resize(original, round(height * scale), round(width * scale))
            found = detect_image(cropped, self._detector(options))
        found = dataclasses.replace(found, width=width, height=height)
        if is_anybody_in(found):
            return found
        if options.align == "none":
            return None
        if image_pose is not None:
            raise InputError(f"nobody is to be seen in {pose_name}; give other keypoints, or set align=none.")
        raise InputError(
            f"nobody was found in the {width}x{height} crop of {name}; use a clearer picture or another aspect, give "
            "its keypoints as image_pose, or set align=none."
        )

    def _people_in_motion(
        self,
        opened: OpenedMotion,
        wanted: range,
        options: PipelineOptions,
        progress: bool,
        kept: list[Frame] | None,
        watch: Watch | None,
    ) -> tuple[Keypoints, tuple[int, ...] | None]:
        """Keypoints of everybody in the motion, at the output's frame rate, and where its pictures are cut."""
        if opened.keypoints is not None:
            return opened.keypoints_of(wanted), None
        assert opened.frames is not None
        cuts, fps = CutDetector(), opened.fps / wanted.step
        frames = cuts.watch(_watched(opened.frames(wanted), len(wanted), kept, watch))
        found = detect_video(frames, self._detector(options), fps, len(wanted), progress)
        return found, tuple(cuts.cuts())

    def _detector(self, options: DetectorOptions) -> Detector:
        key = (options.detector, options.person_model, options.pose_model)
        if key not in self._detectors:
            self._detectors[key] = options.load_detector()
        return self._detectors[key]


def check_person(name: str, keypoints: Keypoints, choice: PersonChoice) -> int:
    """Return the column of the person chosen.

    Raises:
        InputError: no such person; it names the file.
    """
    try:
        person = choose_person(keypoints, choice)
        keypoints.person(person)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return person


def _watched(frames: Iterable[Frame], total: int, kept: list[Frame] | None, watch: Watch | None) -> Iterator[Frame]:
    for number, frame in enumerate(frames, 1):
        if kept is not None:
            kept.append(_small(frame))
        if watch is not None:
            watch(number, total)
        yield frame


def _small(frame: Frame) -> Frame:
    scale = _THUMBNAIL / min(frame.shape[:2])
    if scale >= 1:
        return frame.copy()
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


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
