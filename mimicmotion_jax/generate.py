"""From files to files: a picture and a motion on disk become a video on disk; what `sample.py` calls."""

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import jax
import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from mimicmotion_jax.checkpoint import read_sampling
from mimicmotion_jax.compilation import enable_compilation_cache
from mimicmotion_jax.config import build_config, config_dataclass, read_values, to_dict
from mimicmotion_jax.cores import split_cpu
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.pipeline import DTypeName, MimicMotionPipeline, PoseBatch, SamplingConfig
from mimicmotion_jax.pose.align import align
from mimicmotion_jax.pose.detect import Detector, detect_image, detect_video, load_detector
from mimicmotion_jax.pose.files import load_keypoints, save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.pose.render import DrawnPoses, DrawStyle
from mimicmotion_jax.pose.select import diagnose, fill_gaps, select_person
from mimicmotion_jax.sharding import sampling_mesh
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import VideoWriter, check_writable, open_writer
from mimicmotion_jax.video.image import SIZE_MULTIPLE, crop_resize, read_image, target_size
from mimicmotion_jax.video.provenance import provenance

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=SamplingConfig)


@config_dataclass
class GenerateConfig(SamplingConfig):
    """Everything that `sample.py` lets you choose, beside the files."""

    # The picture.
    resolution: Annotated[int, Field(ge=64)] = 576  # the short side
    aspect: Literal["auto", "portrait", "landscape", "square"] = "auto"
    size: tuple[int, int] | None = None  # width, height; goes before resolution and aspect
    # The motion.
    stride: Annotated[int, Field(ge=1)] = 1  # take every n-th frame; the output's frame rate falls alike
    start: Annotated[float, Field(ge=0)] = 0.0  # second of the motion at which to begin
    max_frames: Annotated[int, Field(ge=1)] | None = None
    detector: Literal["auto", "dwpose", "mediapipe"] = "auto"
    person_model: str | None = None  # DWPose's yolox_l.onnx
    pose_model: str | None = None  # DWPose's dw-ll_ucoco_384.onnx
    person: Literal["largest", "central"] | Annotated[int, Field(ge=0)] = "largest"
    gaps: Literal["interpolate", "dark"] = "interpolate"  # joints that the detector lost for a moment
    align: Literal["none", "affine", "limb"] = "affine"
    smooth: bool = False  # one-euro filter against jitter
    confidence: Literal["brightness", "threshold"] = "brightness"
    antialias: bool = False
    stroke_width: Annotated[float, Field(gt=0, le=20)] = 1.0
    # The output.
    audio: bool = True  # carry the driving video's sound over
    save_pose: bool = False  # beside the video: OUTPUT_pose.mp4 and OUTPUT_pose.npz
    side_by_side: bool = False  # reference, skeleton and result in one picture
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    # The run.
    batch_size: Annotated[int, Field(ge=1)] = 2  # jobs of equal shape that are generated together

    @property
    def draw_style(self) -> DrawStyle:
        """How skeletons are drawn."""
        return DrawStyle(confidence=self.confidence, antialias=self.antialias, stroke_width=self.stroke_width)


def load_options(
    checkpoint: Path | None = None,
    path: Path | None = None,
    overrides: Sequence[str] = (),
    cls: type[T] = GenerateConfig,
    ignored: Collection[str] = (),
) -> T:
    """Options of the command line before those of a YAML file before those that the checkpoint brings with it.

    Args:
        checkpoint: None brings nothing.
        path: of the YAML file.
        overrides: `key=value`.
        cls: what the options are for.
        ignored: keys that a checkpoint may bring in vain.

    Raises:
        InputError: as `config.load_config`, or a checkpoint that is missing or damaged.
    """
    given = read_values(path, overrides)
    brought = {} if checkpoint is None else read_sampling(checkpoint)
    dropped = {*ignored, "size"} if given.keys() & {"resolution", "aspect"} else ignored  # size would go before them
    kept = {key: value for key, value in brought.items() if key not in dropped}
    return build_config(cls, kept | given, source=str(path) if path else "the configuration")


@dataclasses.dataclass(frozen=True)
class Job:
    """One video to make."""

    image: Path
    motion: Path
    output: Path
    image_pose: Path | None = None  # keypoints of the reference picture, cropped as it will be; None detects them
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job ready for the device: the picture, the motion in that picture, and where the result goes."""

    image: UInt8[np.ndarray, "height width 3"]
    keypoints: Keypoints  # the reference's pose first, then the aligned motion
    output: Path
    seed: int
    sound: Path | None = None
    sound_start: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Jobs of equal shape can share a batch: frames, height, width."""
        return (self.keypoints.num_frames, *self.image.shape[:2])


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
        check_writable(job.output)
        original = read_image(job.image)
        aspect = config.size or config.aspect
        height, width = target_size(*original.shape[:2], config.resolution, aspect, self._size_multiple)
        _warn_of_crop(job.image, original.shape[:2], (height, width))
        reference = self._reference(job, original, height, width)
        motion, sound = self._motion(job.motion, progress)
        logger.info("%s: %s", job.motion, diagnose(motion).summary())
        try:
            motion = fill_gaps(select_person(motion, config.person), config.gaps)
        except InputError as error:
            raise InputError(f"{job.motion}: {error}") from None
        if reference is None:
            motion, report = align(motion, motion[:1], "none", config.smooth)
            motion = dataclasses.replace(motion, width=width, height=height)
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
        _open(prepared, config)  # checks what it is given, writes nothing: better now than after the denoising
        return prepared

    def check(self, job: Job) -> None:
        """Look at a job's files without detecting anything: for use before weights are loaded.

        Raises:
            InputError: a file that is missing or unreadable, an output that cannot be written.
        """
        check_writable(job.output)
        read_image(job.image)
        if is_keypoints(job.motion):
            load_keypoints(job.motion)
        else:
            open_video(job.motion)
        if job.image_pose is not None:
            load_keypoints(job.image_pose)

    def _reference(self, job: Job, original: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> Keypoints | None:
        """The pose of the person in the picture as it will be cropped, found at the picture's own resolution."""
        if job.image_pose is not None:
            found = load_keypoints(job.image_pose)[:1]
        else:
            scale = max(1.0, min(original.shape[0] / height, original.shape[1] / width))
            cropped = crop_resize(original, round(height * scale), round(width * scale))
            found = detect_image(cropped, self._load_detector())
        found = dataclasses.replace(found, width=width, height=height)
        if found.num_people:
            return select_person(found, self.config.person)
        if self.config.align == "none":
            return None  # the motion's first pose stands in
        raise InputError(
            f"nobody was found in the {width}x{height} crop of {job.image}; use a clearer picture or another aspect, "
            "give its keypoints with --image-pose, or say align=none."
        )

    def _motion(self, path: Path, progress: bool) -> tuple[Keypoints, Path | None]:
        """Keypoints of the motion at the output's frame rate, and where its sound is."""
        config = self.config
        if is_keypoints(path):
            whole = load_keypoints(path)
            first, last = _range(config, whole.fps, whole.num_frames, path)
            cut = whole[first : last : config.stride]
            return dataclasses.replace(cut, fps=whole.fps / config.stride), None
        reader = open_video(path)
        first, last = _range(config, reader.fps, reader.num_frames, path)
        frames = reader.frames(config.stride, first, last)
        count = len(range(first, last, config.stride))
        found = detect_video(frames, self._load_detector(), reader.fps / config.stride, count, progress)
        return found, path if config.audio and reader.has_audio else None

    def _load_detector(self) -> Detector:
        if self._detector is None:
            models = {"person_model": self.config.person_model, "pose_model": self.config.pose_model}
            self._detector = load_detector(self.config.detector, **models)
        return self._detector


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
    return path.suffix in (".npz", ".json") or (path.is_dir() and any(path.glob("*_keypoints.json")))


def load_pipeline(
    checkpoint: Path, config: GenerateConfig, dtype: DTypeName | None = None, num_devices: int | None = None
) -> MimicMotionPipeline:
    """Load the weights and refuse what cannot work with them, before minutes are spent on detecting poses.

    Args:
        checkpoint: written by `convert_weights.py` or `train.py`.
        config: of the generation.
        dtype: as `MimicMotionPipeline.from_pretrained`.
        num_devices: to spread windows over; None takes all, and a CPU for one.

    Raises:
        InputError: no or another kind of checkpoint, too many devices, windows that the checkpoint cannot have.
    """
    enable_compilation_cache()
    split_cpu(num_devices or 1)
    pipeline = MimicMotionPipeline.from_pretrained(checkpoint, dtype, sampling_mesh(num_devices), progress=True)
    config.plan(1, pipeline.config.window_size)
    return pipeline


def generate(pipeline: MimicMotionPipeline, batch: Sequence[Prepared], config: GenerateConfig) -> None:
    """Make the videos of a batch of equal shapes and write them; frames are streamed, never held all at once.

    Raises:
        InputError: the device's memory does not suffice, or an output cannot be written.
    """
    height, width = batch[0].image.shape[:2]
    poses = PoseBatch([DrawnPoses(item.keypoints, height, width, config.draw_style) for item in batch])
    images = np.stack([item.image for item in batch])
    with _explain_memory():
        latents = pipeline.latents(images, poses, config, seeds=[item.seed for item in batch], progress=True)
        # The video comes last: where it is, the job is done.
        if config.save_pose:
            for item, drawn in zip(batch, poses.sequences, strict=True):
                _save_pose(item, drawn)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(_open(item, config)) for item in batch]
            start = 0
            for frames in pipeline.decode(latents, config, progress=True):
                pixels = np.round(frames * 255).astype(np.uint8)
                stop = start + pixels.shape[1]
                # Frame 0 stands for the reference picture and is not part of the video.
                for i, (item, writer) in enumerate(zip(batch, writers, strict=True)):
                    skip = int(start == 0)
                    if stop - start > skip:
                        shown = _compose(item, poses.sequences[i], pixels[i, skip:], start + skip, config)
                        writer.write(shown)
                start = stop
    for item in batch:
        logger.info("wrote %s", item.output)


def _open(item: Prepared, config: GenerateConfig) -> contextlib.AbstractContextManager[VideoWriter]:
    height, width = item.image.shape[:2]
    if config.side_by_side:
        panel = np.zeros((1, height, width, 3), np.uint8)
        height, width = side_by_side([panel] * 3, max(height, _MIN_PANEL), labels=_LABELS).shape[1:3]
    return open_writer(
        item.output,
        item.keypoints.fps,
        width,
        height,
        crf=config.crf,
        audio_from=item.sound if item.output.suffix == ".mp4" else None,
        audio_start=item.sound_start,
        metadata=provenance(item.seed, to_dict(config)),
    )


_LABELS = ("reference", "motion", "result")
_MIN_PANEL = 256  # pixels of height: smaller videos are enlarged where they are shown side by side


def _compose(
    item: Prepared, poses: DrawnPoses, pixels: UInt8[np.ndarray, "n h w 3"], start: int, config: GenerateConfig
) -> UInt8[np.ndarray, "n h2 w2 3"]:
    if not config.side_by_side:
        return pixels
    panels = [item.image, poses[start : start + len(pixels)], pixels]
    return side_by_side(panels, max(pixels.shape[1], _MIN_PANEL), labels=_LABELS)


def _save_pose(item: Prepared, poses: DrawnPoses) -> None:
    """The drawn skeleton and the keypoints of the motion, without the reference's."""
    stem = item.output.with_name(item.output.stem + "_pose")
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_keypoints(item.keypoints[1:], stem.with_suffix(".npz"))
    _, height, width, _ = poses.shape
    with open_writer(stem.with_suffix(".mp4"), item.keypoints.fps, width, height) as writer:
        for start in range(1, len(poses), 16):
            writer.write(poses[start : start + 16])


def _range(config: GenerateConfig, fps: float, num_frames: int, path: Path) -> tuple[int, int]:
    """First frame and the one after the last, from `start` and `max_frames`."""
    if num_frames == 0:
        raise InputError(f"{path} holds no frames; use another motion.")
    first = round(config.start * fps)
    if first >= num_frames:
        raise InputError(f"start={config.start:g} lies behind the end of {path}, at {num_frames / fps:.2f} s.")
    if config.max_frames is None:
        return first, num_frames
    return first, min(num_frames, first + config.max_frames * config.stride)


@contextlib.contextmanager
def _explain_memory() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            "the device's memory does not suffice; lower batch_size, group_size, decode_chunk_size or resolution, or "
            "use more devices."
        ) from error
