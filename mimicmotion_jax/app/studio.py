"""The studio behind its page: preflights, a queue of generations and their results, for all sessions."""

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mimicmotion_jax.app import form
from mimicmotion_jax.app.generation import Result, Step, StoppedError, generate
from mimicmotion_jax.app.preflight import Checker, Preflight, too_long_message
from mimicmotion_jax.app.preflight_page import preflight_page
from mimicmotion_jax.app.timing import Timing
from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.motion import open_motion
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.runtime.errors import InputError

_KEPT_LOOKS = 8
_MAX_WAITING = 20  # generations
_POLL_SECONDS = 0.5  # between two looks at the queue

Inputs = Sequence[str | None]
"""Paths of the image, a video, keypoints of the motion and keypoints of the image; None where nothing was given."""


@dataclasses.dataclass(frozen=True)
class Example:
    """Inputs that come with the studio.

    Attributes:
        name: text of its button.
        image: reference image.
        keypoints: the motion.
        image_pose: keypoints of the image.
    """

    name: str
    image: Path
    keypoints: Path
    image_pose: Path


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished video with what it was made from.

    Attributes:
        key: name that nobody can guess.
        result: files and settings.
        inputs: of the form.
        values: of the form's options.
    """

    key: str
    result: Result
    inputs: Inputs
    values: Sequence[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """A generation in the queue."""

    session: str
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)


class Studio:
    """State and actions of the page (`page.StudioPage`).

    Args:
        pipeline: the networks.
        folder: folder of all uploads and results; the page serves files from nowhere else.
        max_frames: length of the longest video that is made.
        timing: durations of earlier videos.
    """

    def __init__(self, pipeline: MimicMotionPipeline, folder: Path, max_frames: int, timing: Timing | None = None):
        self._pipeline, self._folder, self._max_frames = pipeline, folder, max_frames
        # What a preflight detects, the pipeline does not detect again.
        self._checker = Checker(pipeline.config, longest=max_frames, cache=pipeline.preparer.survey.cache)
        self._timing = timing or Timing()
        self._jobs: list[_Job] = []  # the first one is being made
        self._devices = threading.Lock()
        self._made: dict[str, Made] = {}
        self._looks: dict[tuple[Any, ...], tuple[Preflight, str]] = {}

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Options that the checkpoint brings."""
        return self._pipeline.defaults

    def look(self, inputs: Inputs, values: Sequence[Any]) -> tuple[Preflight, str]:
        """Make the preflight of a form, and its page; the last ones are kept.

        Raises:
            InputError: anything that would keep the video from being generated; files are named without folders.
        """
        with _named(inputs):
            options = form.to_options(values, self._pipeline.defaults)
            image, motion, image_pose = _require(inputs)
            key = (*inputs, *map(str, values), self._timing.version)
            if key not in self._looks:
                preflight = self._checker(image, motion, options, image_pose, progress=False)
                self._looks[key] = preflight, preflight_page(preflight, self._timing.expect(preflight))
                while len(self._looks) > _KEPT_LOOKS:
                    del self._looks[next(iter(self._looks))]
            return self._looks[key]

    def run(self, inputs: Inputs, values: Sequence[Any], session: str) -> Iterator[Step | Made]:
        """Generate when it is this job's turn: yield progress, and the finished video last.

        Raises:
            StoppedError: `stop(session)` was called.
            InputError: as `look`; the video is too long, or too many others wait.
        """
        with _named(inputs):
            options = form.to_options(values, self._pipeline.defaults)
            image, motion, image_pose = _require(inputs)
            too_long = too_long_message(len(open_motion(motion, options).select(options)), self._max_frames)
            if too_long is not None:
                raise InputError(f"{too_long}.")
            if len(self._jobs) > _MAX_WAITING:
                raise InputError(f"{_MAX_WAITING} videos wait already; try again later.")
            job = _Job(session)
            self._jobs.append(job)
            try:
                yield from self._wait(job)
                arguments = {**values_of(PipelineOptions, options), "image": image, "motion": motion}
                arguments["image_pose"] = image_pose
                state = (job.stop, self._timing, self._devices)
                for update in generate(self._pipeline, arguments, self.new_folder(), *state):
                    if isinstance(update, Step):
                        yield update
                    else:
                        made = Made(secrets.token_hex(16), update, tuple(inputs), tuple(values))
                        self._made[made.key] = made
                        yield made
            finally:
                self._jobs.remove(job)

    def stop(self, session: str) -> None:
        """Stop what a session generates, at its next step, and what it has in the queue."""
        for job in [job for job in self._jobs if job.session == session]:
            job.stop.set()

    def made(self, key: str | None) -> Made | None:
        """Return a finished video by its key; None if there is no such one."""
        return self._made.get(key or "")

    def new_folder(self) -> Path:
        """Path of a new folder for files, whose name nobody can guess."""
        return self._folder / secrets.token_hex(16)

    def write_page(self, page: str) -> Path:
        """Write a preflight's page into a new folder."""
        folder = self.new_folder()
        folder.mkdir(parents=True)
        (folder / "check.html").write_text(page)
        return folder / "check.html"

    def _wait(self, job: _Job) -> Iterator[Step]:
        """Yield the number of jobs before this one until there is none."""
        while before := self._jobs.index(job):
            if job.stop.is_set():
                raise StoppedError
            yield Step(f"waiting in the queue, {before} before you")
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _named(inputs: Inputs) -> Iterator[None]:
    """Take the folders of uploads out of errors."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for path in filter(None, inputs):
            text = text.replace(path, Path(path).name)
        raise InputError(text) from None


def _require(inputs: Inputs) -> tuple[str, str, str | None]:
    image, video, keypoints, image_pose = inputs
    if image is None:
        raise InputError("give a picture of the person who is to move.")
    if video is None and keypoints is None:
        raise InputError("give a motion: a video, or keypoints.")
    return image, video or keypoints or "", image_pose
