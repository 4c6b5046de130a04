"""Say in the file itself that a video is AI-generated, by what and from which settings; and read that back."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video import image
from mimicmotion_jax.video.decode import list_pictures
from mimicmotion_jax.video.ffmpeg import open_container

# IPTC's word for "made by a trained model": what platforms look for.
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def provenance(seed: int, settings: Mapping[str, Any]) -> dict[str, str]:
    """The `metadata` for `encode.open_writer`: AI-generated, software and version, seed, SHA-256 of the settings.

    Args:
        seed: of the noise.
        settings: all that decides the result, as plain dictionaries, lists and scalars (`config.to_dict`).
    """
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return {
        "description": "AI-generated video",
        "digital_source_type": _SOURCE_TYPE,
        "software": f"mimicmotion_jax {_version()}",
        "seed": str(seed),
        "settings_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
    }


def read_provenance(path: str | Path) -> dict[str, str]:
    """What `open_writer` was given as `metadata`, from an MP4, a GIF or a folder of PNGs; empty for other files.

    Raises:
        InputError: missing or unreadable file.
    """
    path = Path(path)
    if path.is_dir():
        path = list_pictures(path)[0]
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path.")
    if image.is_still(path):
        with Image.open(path, formats=image.FORMATS) as picture:
            comment = picture.info.get("Comment") or picture.info.get("comment")
    else:
        with open_container(path) as container:
            comment = container.metadata.get("comment")
    try:
        found = json.loads(comment or "{}")
    except ValueError:
        # Somebody else's comment.
        return {}
    return found if isinstance(found, dict) else {}


def _version() -> str:
    try:
        return version("mimicmotion-jax")
    except PackageNotFoundError:
        return "(from source, not installed)"
