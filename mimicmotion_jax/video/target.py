"""Places that videos are written to: a file or a folder of numbered PNGs, local or remote; and whether it is ours."""

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from mimicmotion_jax.runtime.atomic_files import absolute_path, replace_directory
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.provenance import check_replaceable, is_ours

_NUMBER_PATTERN = re.compile(r"%0(\d)d\.png", re.IGNORECASE)
_NUMBERED = re.compile(r"\d+\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """The file or folder that appears when a video is written."""

    path: Path | epath.Path
    """Remote (gs://) as `epath.Path`, else as `Path`."""
    format: str
    """mp4, gif or png (a folder of pictures)."""
    digits: int = 5
    """Digits of a picture's number."""

    @classmethod
    def parse(cls, path: epath.PathLike) -> "Target":
        """Tell the format by the name: `x.mp4`, `x.gif`, `folder` or `folder/%05d.png`.

        Raises:
            InputError: unknown format or storage.
        """
        place = absolute_path(path) if "://" in str(path) else Path(path)
        suffix = place.suffix.lower()
        if suffix in (".mp4", ".gif"):
            return cls(place, suffix[1:])
        if match := _NUMBER_PATTERN.fullmatch(place.name):
            if not place.parent.name:
                raise InputError(f"cannot write {path}: pictures need a folder of their own, such as frames/{path}.")
            return cls(place.parent, "png", int(match[1]))
        # Unlike `Path`'s, functions of `os.path` take names that no file can have.
        if place.name and (not suffix or os.path.isdir(place)):
            return cls(place, "png")
        raise InputError(f"cannot write {path}: give a name like x.mp4, x.gif, or folder or folder/%05d.png.")

    @property
    def is_remote(self) -> bool:
        """Return True for a path such as gs://bucket/x.mp4."""
        return "://" in str(self.path)

    def is_written(self) -> bool:
        """Return True if a whole video that this software wrote is there."""
        with contextlib.suppress(OSError, ValueError):  # such as a name that no file can have
            if self.format != "png":
                return self.path.is_file() and is_ours(self.path)
            pictures = sorted(self.path.iterdir()) if self.path.is_dir() else []
            # The first one is written last where folders do not appear in one step.
            return all(map(_is_our_picture, pictures)) and bool(pictures) and int(pictures[0].stem) == 0
        return False

    def check_replaceable(self, overwrite: bool) -> None:
        """Check that nothing of the user's would be lost.

        Raises:
            InputError: a folder where a file should go or the reverse; a folder that holds other things than numbered
                PNGs; or, unless `overwrite`, a file that this software did not write.
        """
        if self.format != "png":
            if self.path.is_dir():
                raise InputError(f"{self.path} is a folder; give the name of a file in it or remove it.")
            check_replaceable(self.path, overwrite)
        elif self.path.exists():
            if not self.path.is_dir():
                raise InputError(f"{self.path} is a file, but pictures go into a folder; give another name.")
            for path in self.path.iterdir():
                if not _NUMBERED.fullmatch(path.name):
                    raise InputError(
                        f"the folder {self.path} holds other things ({path.name}); give a new or empty one."
                    )
                check_replaceable(path, overwrite)

    def replace(self, finished: Path) -> None:
        """Put a finished local file or folder in this place.

        Raises:
            OSError: it cannot be done.
        """
        if self.is_remote:
            _upload(finished, epath.Path(self.path))
        elif self.format == "png":
            replace_directory(finished, self.path)
        else:
            os.replace(finished, self.path)


def _is_our_picture(path: Path | epath.Path) -> bool:
    return _NUMBERED.fullmatch(path.name) is not None and is_ours(path)


def _upload(source: Path, destination: epath.Path) -> None:
    """Copy a file, or a folder whose first file comes last, so that half a folder can be told from a whole one."""
    if source.is_file():
        destination.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as local, destination.open("wb") as remote:
            shutil.copyfileobj(local, remote)
        return
    names = sorted(path.name for path in source.iterdir())
    (destination / names[0]).unlink(missing_ok=True)
    destination.rmtree(missing_ok=True)
    for name in reversed(names):
        _upload(source / name, destination / name)
