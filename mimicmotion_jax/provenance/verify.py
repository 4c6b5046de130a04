"""Search a file for signs that this software made it: content credentials, watermark, settings in its comment."""

import dataclasses
from pathlib import Path
from typing import Any

from mimicmotion_jax.provenance.credentials import Credentials, read_credentials
from mimicmotion_jax.provenance.watermark_detection import MAX_FALSE_POSITIVE_RATE, Detection, detect
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import DEFAULT_FPS, open_video
from mimicmotion_jax.video.provenance import names_us, read_provenance

_FRAMES_PER_SECOND = 10  # that are searched for the watermark: neighbouring frames tell little more
_MAX_FRAMES = 150


@dataclasses.dataclass(frozen=True)
class Findings:
    """Signs of origin in one file; `str(findings)` has a line for each.

    Attributes:
        path: the file, or the folder of PNGs.
        credentials: content credentials; None if there are none.
        watermark: result of the search in the frames; None for a file without frames (`.npz`).
        settings: the comment of our files (see `video.provenance`); empty for others.
        notes: what could not be looked for, a sentence each.
    """

    path: Path
    credentials: Credentials | None
    watermark: Detection | None
    settings: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Return True if anything says that this software made the file."""
        credentials = self.credentials is not None and self.credentials.is_ours
        return credentials or (self.watermark is not None and self.watermark.found) or names_us(self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Findings as plain values, for JSON."""
        mark = self.watermark
        return {
            "file": str(self.path),
            "found": self.found,
            "credentials": None if self.credentials is None else dataclasses.asdict(self.credentials),
            "watermark": None if mark is None else {"found": mark.found, **dataclasses.asdict(mark)},
            "settings": self.settings,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        rows = [("credentials", _describe_credentials(self.credentials)), ("watermark", _describe_mark(self.watermark))]
        rows += [("settings", settings or "none"), *(("note", note) for note in self.notes)]
        return "\n".join([str(self.path), *(f"  {name:12} {text}" for name, text in rows)])


def verify(path: Path) -> Findings:
    """Look for signs of origin in a video, a GIF, a PNG, a folder of PNGs, or keypoints (`.npz`).

    Raises:
        InputError: a file that is missing, or neither a video nor a picture.
    """
    settings = read_provenance(path)
    notes, credentials, watermark = [], None, None
    if path.suffix.lower() != ".npz":
        watermark = _search(path)
        try:
            credentials = read_credentials(path)
        except InputError as error:
            notes.append(str(error))
    return Findings(path, credentials, watermark, settings, tuple(notes))


def _search(path: Path) -> Detection:
    video = open_video(path, fps=DEFAULT_FPS, tolerate_truncation=True)
    stride = max(1, round(video.fps / _FRAMES_PER_SECOND)) if video.num_frames > _FRAMES_PER_SECOND else 1
    return detect(video.frames(stride, stop=stride * _MAX_FRAMES))


def _describe_mark(mark: Detection | None) -> str:
    if mark is None:
        return "not looked for"
    numbers = f"score {mark.score:.1f}, false-positive rate at most {mark.false_positive_rate:.0e}"
    if mark.found:
        return f"found: {numbers}, at {mark.scale:.2f} times the generated size, in {mark.num_frames} frames"
    return f"not found: {numbers}, where {MAX_FALSE_POSITIVE_RATE:.0e} is asked for, in {mark.num_frames} frames"


def _describe_credentials(credentials: Credentials | None) -> str:
    if credentials is None:
        return "none"
    kinds = ", ".join(kind.rsplit("/", 1)[-1] for kind in credentials.source_types) or "no source type"
    about = (
        f"by {credentials.software or 'unnamed software'}, {kinds}, signed by {credentials.signer or 'nobody named'}"
    )
    problems = f" ({', '.join(credentials.problems)})" if credentials.problems else ""
    return f"{credentials.state}{problems}: {about}"
