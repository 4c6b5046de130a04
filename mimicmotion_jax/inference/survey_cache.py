"""Surveys of files that were made already: another seed, alignment or person detects nothing again."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimicmotion_jax.inference.options import PipelineOptions

if TYPE_CHECKING:
    from mimicmotion_jax.inference.survey import Survey

_OPTIONS = (
    *("resolution", "aspect", "height", "width", "num_frames", "start", "stride", "scenes", "motion_fps"),
    *("motion_size", "tolerate_truncation", "detector", "person_model", "pose_model"),
)

Key = tuple[Any, ...]


class SurveyCache:
    """The last surveys of files; threads may share it.

    Args:
        size: number of surveys.
    """

    def __init__(self, size: int = 8):
        self._size = size
        self._surveys: dict[Key, Survey] = {}
        self._lock = threading.Lock()

    def get(self, key: Key | None, max_frames: int | None) -> "Survey | None":
        """Return a survey that was `put` with these arguments; any that is complete, where `max_frames` is None."""
        with self._lock:
            survey = self._surveys.pop((key, max_frames), None)
            if survey is not None:
                self._surveys[key, max_frames] = survey  # used last, dropped last
            return survey

    def put(self, key: Key | None, max_frames: int | None, survey: "Survey") -> None:
        """Keep a survey; nothing for the key None."""
        if key is None:
            return
        with self._lock:
            self._surveys[key, max_frames] = survey
            if survey.is_complete:
                self._surveys[key, None] = survey
            while len(self._surveys) > self._size:
                del self._surveys[next(iter(self._surveys))]


def survey_key(image: Any, motion: Any, options: PipelineOptions, image_pose: Any) -> Key | None:
    """Everything that a survey of files depends on; None for inputs in memory and for folders."""
    given = [path for path in (image, motion, image_pose) if path is not None]
    paths = [Path(path) for path in given if isinstance(path, str | os.PathLike)]
    if len(paths) < len(given) or not all(map(os.path.isfile, paths)):
        return None
    stats = [path.stat() for path in paths]
    files = [(str(path), stat.st_mtime_ns, stat.st_size) for path, stat in zip(paths, stats, strict=True)]
    values = [str(getattr(options, name)) for name in _OPTIONS]
    # Who is followed decides where keypoints are cut, and align=none admits a picture of nobody.
    chosen = (str(options.person) if options.scenes != "all" else None, options.align == "none", image_pose is None)
    return (*files, *values, *chosen)
