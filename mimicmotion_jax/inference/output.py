"""Results of a call: frames in memory or frame by frame, and their writing, with sound and provenance."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image

from mimicmotion_jax.config import build_config
from mimicmotion_jax.inference import signs
from mimicmotion_jax.inference.job import DrawnFrames, Job, Prepared, Report
from mimicmotion_jax.inference.options import OutputOptions
from mimicmotion_jax.inference.progress import Progress
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import Keypoints
from mimicmotion_jax.provenance.watermark import mark
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.encode import VideoWriter, check_writable, open_writer, output_target
from mimicmotion_jax.video.provenance import check_replaceable, provenance

_LABELS = ("reference", "motion", "result")
_MIN_PANEL = 256  # pixels of height: smaller videos are enlarged where they are shown side by side

Chunks = Iterator[Float[np.ndarray, "b n height width 3"]]


class _Result:
    """Parts that a video and a stream of its frames share."""

    prepared: Prepared
    _first: int

    @property
    def keypoints(self) -> Keypoints | None:
        """The motion as it was drawn, in the reference's picture; None for skeletons that were drawn already."""
        return self.prepared.keypoints

    @property
    def fps(self) -> float:
        """Frames per second: the motion's, divided by `stride`."""
        return self.prepared.fps

    @property
    def report(self) -> Report:
        """Findings of detection and alignment; `print(video.report)`."""
        return self.prepared.report

    def save(
        self,
        path: epath.PathLike,
        *,
        audio: bool = True,
        side_by_side: bool = False,
        save_pose: bool = False,
        crf: int = 18,
        overwrite: bool = False,
        watermark: bool | None = None,
        credentials: bool | None = None,
        certificate: str | os.PathLike[str] | None = None,
        private_key: str | os.PathLike[str] | None = None,
    ) -> None:
        """Write the video; it appears under its name when it is complete.

        Args:
            path: `.mp4`, `.gif`, or a folder of numbered PNGs; local or gs://.
            audio: carry the driving video's sound over (MP4).
            side_by_side: show reference, skeleton and result in one picture.
            save_pose: also write OUTPUT_pose.mp4 and OUTPUT_pose.npz.
            crf: quality of an MP4, 0 (best) to 51 (smallest).
            overwrite: replace files that this software did not write.
            watermark: mark the written frames invisibly as generated (`frames` stay as they are); None: those of a
                checkpoint, from 192 pixels on, and not those of random weights.
            credentials: sign content credentials (C2PA); None: likewise, if c2pa-python is installed.
            certificate: PEM file with your certificate chain for them; None: a local one, which vouches for nobody.
            private_key: PEM file with its private key, without a password.

        Raises:
            InputError: a place that cannot be written to, a file of somebody else's, a certificate that cannot sign, or
                latents.
        """
        given = {
            "audio": audio,
            "side_by_side": side_by_side,
            "save_pose": save_pose,
            "crf": crf,
            "overwrite": overwrite,
            "watermark": watermark,
            "credentials": credentials,
            "certificate": None if certificate is None else os.fspath(certificate),
            "private_key": None if private_key is None else os.fspath(private_key),
        }
        options = build_config(OutputOptions, given, "the options of save")
        write_videos([self.prepared], [path], self._chunks(), options, self._first)
        self._is_complete()

    def _chunks(self) -> Chunks:
        raise NotImplementedError

    def _is_complete(self) -> None:
        """Do what remains when the video is written."""


class Video(_Result):
    """A generated video in memory.

    Attributes:
        frames: float32 [F, H, W, 3] in [0, 1], a list of PIL images, or latents [F, h, w, c], as `output_type` says.
        prepared: the inputs it was made from.
    """

    def __init__(self, frames: np.ndarray | list[Image.Image], prepared: Prepared, first: int = 1):
        """Hold `frames`; the first of them belongs to `prepared.poses[first]`."""
        self.frames, self.prepared, self._first = frames, prepared, first

    def _chunks(self) -> Chunks:
        if isinstance(self.frames, list):
            return (np.asarray(frame, np.float32)[None, None] / 255 for frame in self.frames)
        if self.frames.shape[1:3] != self.prepared.shape[1:]:
            raise InputError('latents cannot be saved as a video; generate with output_type="np" or "pil".')
        return iter([self.frames[None]])


class VideoStream(_Result):
    """A video while it is being made: iterate over its frames or save it, once. Nothing is computed before that.

    Attributes:
        prepared: the inputs.
    """

    def __init__(self, prepared: Prepared, chunks: Chunks, first: int = 1, saved: Progress | None = None):
        """Take frames from `chunks`, of a batch of one; the first of them belongs to `prepared.poses[first]`.

        `saved` is the progress of the video, to be removed when it is complete.
        """
        self.prepared, self._first, self._source, self._saved = prepared, first, chunks, saved

    def __len__(self) -> int:
        return self.prepared.shape[0] - self._first

    def __iter__(self) -> Iterator[Float[np.ndarray, "height width 3"]]:
        """Yield float32 frames [H, W, 3] in [0, 1] as they are decoded."""
        for chunk in self._source:
            yield from chunk[0]
        self._is_complete()

    def _is_complete(self) -> None:
        if self._saved is not None:
            self._saved.remove()

    def _chunks(self) -> Chunks:
        return self._source


def write_videos(
    batch: Sequence[Prepared], outputs: Sequence[epath.PathLike], chunks: Chunks, options: OutputOptions, first: int = 1
) -> None:
    """Write a batch of videos frame by frame while it is made.

    The files are opened, and refused, before the first frame is asked for.

    Args:
        batch: inputs of the videos.
        outputs: where each goes.
        chunks: frames in [0, 1] of all of them.
        options: how they are written.
        first: index in `poses` of the first frame.

    Raises:
        InputError: an output that cannot be written; whatever `chunks` raises.
    """
    for output in outputs:
        check_outputs(output, options)
    seals = [signs.seal_of(item, options) for item in batch]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(_open_output(item, output, options, seal))
            for item, output, seal in zip(batch, outputs, seals, strict=True)
        ]
        for frames in chunks:
            pixels = np.round(frames * 255).astype(np.uint8)
            for item, writer, shown in zip(batch, writers, pixels, strict=True):
                composed = _compose(item, shown, first, options)
                writer.write(mark(composed) if signs.is_marked(item, options) else composed)
            first += pixels.shape[1]
        if options.save_pose:  # before the video appears: where it is, the job is done
            for item, output in zip(batch, outputs, strict=True):
                save_pose(item, output, options.overwrite)


def check_outputs(output: epath.PathLike, options: OutputOptions) -> None:
    """Fail before the work where the video, or the pose that is to lie beside it, cannot be written.

    Raises:
        InputError: as `check_writable`.
    """
    check_writable(output, options.overwrite)
    signs.check(options)
    if options.save_pose:
        points, video = _pose_paths(output)
        check_writable(video, options.overwrite)
        if points.is_dir():
            raise InputError(f"cannot write {points}: it is a folder; remove it or choose another output.")
        check_replaceable(points, options.overwrite)


def check_files(job: Job, options: OutputOptions) -> None:
    """Refuse outputs that cannot be written, or that would replace an input.

    Raises:
        InputError: as `check_inputs_stay` and `check_outputs`.
    """
    check_inputs_stay(job, options)
    check_outputs(job.output, options)


def check_inputs_stay(job: Job, options: OutputOptions) -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: the video, or the pose beside it, would take the place of one of the job's inputs.
    """
    for output in written_paths(job.output, options.save_pose):
        for given in job.inputs:
            if takes_place_of(output, given):
                raise InputError(f"writing {output} would destroy the input {given}; give another output.")


def written_paths(output: epath.PathLike, save_pose: bool) -> tuple[Path | epath.Path, ...]:
    """List the files, or the folder of pictures, that a job with this output makes.

    Raises:
        InputError: unknown format.
    """
    return (output_target(output), *(_pose_paths(output) if save_pose else ()))


def takes_place_of(output: epath.PathLike, given: epath.PathLike) -> bool:
    """Return True if writing `output` replaces `given`: by another name too, or as the folder that holds it."""
    if os.path.exists(output) and os.path.exists(given) and os.path.samefile(output, given):
        return True  # also where the file system takes upper and lower case for the same
    written, read = real_path(output), real_path(given)
    return written == read or written in read.parents


def real_path(path: epath.PathLike) -> Path:
    """Absolute path without links; unlike `Path.resolve` it takes names that no file can have."""
    return Path(os.path.realpath(path))


def save_pose(item: Prepared, output: epath.PathLike, overwrite: bool = False) -> None:
    """Write the drawn skeleton, and the keypoints where there are any, of the motion without the reference's.

    Raises:
        InputError: a file that cannot be written.
    """
    points, video = _pose_paths(output)
    metadata = provenance(item.options.seed, item.settings)
    points.parent.mkdir(parents=True, exist_ok=True)
    if item.keypoints is not None:
        save_keypoints(item.keypoints, points, metadata)
    num_frames, height, width = item.shape
    with open_writer(video, item.fps, width, height, metadata=metadata, overwrite=overwrite) as writer:
        for start in range(1, num_frames, 16):
            writer.write(item.poses[start : start + 16])


def _open_output(
    item: Prepared, output: epath.PathLike, options: OutputOptions, seal: Callable[[Path], None] | None
) -> contextlib.AbstractContextManager[VideoWriter]:
    height, width = item.image.shape[:2]
    if options.side_by_side:
        panel = np.zeros((1, height, width, 3), np.uint8)
        height, width = side_by_side([panel] * 3, max(height, _MIN_PANEL), labels=_LABELS).shape[1:3]
    return open_writer(
        output,
        item.fps,
        width,
        height,
        crf=options.crf,
        audio_from=item.sound if options.audio and str(output).lower().endswith(".mp4") else None,
        audio_start=item.sound_start,
        metadata=provenance(item.options.seed, item.settings),
        overwrite=options.overwrite,
        seal=seal,
    )


def _compose(
    item: Prepared, pixels: UInt8[np.ndarray, "n h w 3"], start: int, options: OutputOptions
) -> UInt8[np.ndarray, "n h2 w2 3"]:
    """Frames as they are shown: the result alone, or beside the reference and the skeletons from `start` on."""
    if not options.side_by_side:
        return pixels
    poses: DrawnFrames = item.poses
    panels = [item.image, poses[start : start + len(pixels)], pixels]
    return side_by_side(panels, max(pixels.shape[1], _MIN_PANEL), labels=_LABELS)


def _pose_paths(output: epath.PathLike) -> tuple[Path | epath.Path, Path | epath.Path]:
    """Keypoints and drawn skeleton: beside the video, or beside the folder of its pictures."""
    target = output_target(output)
    stem = target.stem if target.suffix.lower() in (".mp4", ".gif") else target.name
    return target.with_name(f"{stem}_pose.npz"), target.with_name(f"{stem}_pose.mp4")
