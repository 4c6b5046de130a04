"""Record in a file that it is AI-generated, by which software and settings; read that back; tell our files by it."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av.error
from etils import epath

from mimicmotion_jax import __version__
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.numpy_files import read_npz
from mimicmotion_jax.video import image
from mimicmotion_jax.video.decode import list_pictures
from mimicmotion_jax.video.ffmpeg import TAG_OPTIONS

# IPTC's word for "made by a trained model": what platforms look for.
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_SOFTWARE = "mimicmotion_jax"

_MAX_COMMENT = 2**24  # bytes of a comment in a `.npz`

# Exceptions of PyAV and NumPy for files that are damaged or something else.
_UNREADABLE = (
    *(av.error.FFmpegError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, TypeError, AttributeError),
    *(OSError, RuntimeError, MemoryError),
)


def provenance(seed: int, settings: Mapping[str, Any]) -> dict[str, str]:
    """Describe a generated video: AI-generated, software and version, seed, SHA-256 of the settings.

    Args:
        seed: of the noise.
        settings: everything that determines the result, as plain dictionaries, lists and scalars (`config.to_dict`).

    Returns:
        the `metadata` argument of `encode.open_writer` and `files.save_keypoints`.
    """
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return {
        "description": "AI-generated video",
        "digital_source_type": _SOURCE_TYPE,
        "software": f"{_SOFTWARE} {__version__}",
        "seed": str(seed),
        "settings_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
    }


def to_comment(metadata: Mapping[str, str] | None) -> str:
    """Write metadata as the JSON of a file's comment; the software is always named, as the mark of our files."""
    return json.dumps({**(metadata or {}), "software": (metadata or {}).get("software", _SOFTWARE)}, ensure_ascii=False)


def read_provenance(path: epath.PathLike) -> dict[str, str]:
    """Read the metadata that one of our files records: an MP4, a GIF, a PNG, a folder of PNGs, keypoints (`.npz`).

    Returns:
        the metadata as given to its writer, and the software; empty for other files.

    Raises:
        InputError: missing file, or an empty folder.
    """
    place = epath.Path(path)
    if place.is_dir():
        place = list_pictures(place)[0]
    if not place.is_file():
        raise InputError(f"there is no file {path}; check the path.")
    try:
        found = json.loads(_read_comment(place) or "{}")
    except (ValueError, RecursionError):  # somebody else's comment
        return {}
    return found if isinstance(found, dict) else {}


def is_ours(path: Path | epath.Path) -> bool:
    """Return True if the file says that this software wrote it."""
    return names_us(read_provenance(path))


def names_us(record: Mapping[str, Any]) -> bool:
    """Return True if metadata say that this software wrote the file."""
    return str(record.get("software")).startswith(_SOFTWARE)


def check_replaceable(path: Path | epath.Path, overwrite: bool = False) -> None:
    """Check that no file of the user's would be replaced.

    Args:
        path: where a file is about to be written.
        overwrite: replace any file.

    Raises:
        InputError: a file that this software did not write is there.
    """
    if not overwrite and path.exists() and not is_ours(path):
        raise InputError(f"{path} is not a file that mimicmotion wrote; choose another output or say --overwrite.")


def _read_comment(path: epath.Path) -> str | bytes | None:
    """The comment of a file; None if it has none or cannot be read."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        try:
            if suffix == ".npz":
                return str(read_npz(file, str(path), ["comment"], _MAX_COMMENT)["comment"])
            if suffix == ".gif" or suffix in image.SUFFIXES:
                return image.read_comment(file)
            with av.open(file, **TAG_OPTIONS) as container:
                return container.metadata.get("comment")
        except _UNREADABLE:
            return None
