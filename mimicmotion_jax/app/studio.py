"""The studio behind its page: preflights, generations and their files, for all sessions."""

import dataclasses
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mimicmotion_jax.app import form
from mimicmotion_jax.app.generation import Result, Step, Timing, generate
from mimicmotion_jax.app.preflight import Checker, Preflight
from mimicmotion_jax.app.preflight_page import preflight_page
from mimicmotion_jax.config import values_of
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.runtime.errors import InputError

_KEPT_LOOKS = 8

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


class Studio:
    """State and actions of the page (`page.StudioPage`).

    Args:
        pipeline: the networks.
        folder: folder of all uploads and results; the page serves files from nowhere else.
    """

    def __init__(self, pipeline: MimicMotionPipeline, folder: Path):
        self._pipeline, self._folder = pipeline, folder
        self._checker, self._timing = Checker(pipeline.config), Timing()
        self._stops: dict[str, threading.Event] = {}
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
        with _Named(inputs):
            options = form.to_options(values, self._pipeline.defaults)
            image, motion, image_pose = _require(inputs)
            key = (*inputs, *map(str, values), self._timing.version)
            if key not in self._looks:
                preflight = self._checker(image, motion, options, image_pose, progress=False)
                self._looks[key] = preflight, preflight_page(preflight, self._timing.expect(preflight))
                while len(self._looks) > _KEPT_LOOKS:
                    del self._looks[next(iter(self._looks))]
            return self._looks[key]

    def run(self, inputs: Inputs, values: Sequence[Any], session: str) -> Iterator[Step | Result]:
        """Generate; see `generation.generate`.

        Raises:
            StoppedError: `stop(session)` was called.
            InputError: as `look`.
        """
        stop = self._stops[session] = threading.Event()
        with _Named(inputs):
            options = form.to_options(values, self._pipeline.defaults)
            image, motion, image_pose = _require(inputs)
            arguments = {**values_of(PipelineOptions, options), "image": image, "motion": motion}
            folder = self.new_folder()
            yield from generate(self._pipeline, {**arguments, "image_pose": image_pose}, folder, stop, self._timing)

    def stop(self, session: str) -> None:
        """Stop what a session generates, at its next step."""
        if session in self._stops:
            self._stops[session].set()

    def new_folder(self) -> Path:
        """Path of a new folder for files, whose name nobody can guess."""
        return self._folder / secrets.token_hex(16)


class _Named:
    """Context that takes the folders of uploads out of errors."""

    def __init__(self, inputs: Inputs):
        self._paths = [path for path in inputs if path]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, InputError):
            text = str(error)
            for path in self._paths:
                text = text.replace(str(path), Path(path).name)
            raise InputError(text) from None


def _require(inputs: Inputs) -> tuple[str, str, str | None]:
    image, video, keypoints, image_pose = inputs
    if image is None:
        raise InputError("give a picture of the person who is to move.")
    if video is None and keypoints is None:
        raise InputError("give a motion: a video, or keypoints.")
    return image, video or keypoints or "", image_pose
