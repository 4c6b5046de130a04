"""Signs of origin of written videos: which of them get a watermark and content credentials, and of what inputs."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimicmotion_jax.inference.job import Prepared
from mimicmotion_jax.inference.options import OutputOptions
from mimicmotion_jax.pose.keypoints import ARRAYS, Keypoints
from mimicmotion_jax.provenance.credentials import INSTALL, Signer, is_available, load_signer
from mimicmotion_jax.provenance.watermark import MIN_SIDE
from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.provenance import provenance

logger = logging.getLogger(__name__)


def check(options: OutputOptions) -> None:
    """Try the certificate before the work, where credentials were asked for.

    Raises:
        InputError: c2pa-python is not installed, or the certificate cannot sign.
    """
    if options.credentials or options.certificate or options.private_key:
        if options.credentials is False:
            raise InputError("certificate and private_key have no effect with credentials=false; leave them out.")
        _load_signer(options)


def is_marked(item: Prepared, options: OutputOptions) -> bool:
    """Return True if the frames get the watermark."""
    return _is_convincing(item) if options.watermark is None else options.watermark


def seal_of(item: Prepared, options: OutputOptions) -> Callable[[Path], None] | None:
    """Function that signs the finished file of a video; None for one without credentials.

    Raises:
        InputError: credentials were asked for and cannot be signed.
    """
    signer = _signer(item, options)
    if signer is None:
        return None
    logger.info("content credentials are signed with %s", signer.description)
    metadata = provenance(item.options.seed, item.settings)

    def seal(path: Path) -> None:
        try:
            signer.sign(path, item.origin, metadata, is_marked(item, options))
        except InputError as error:  # the certificate was tried before: the work is not thrown away for this
            logger.error("the video is written without content credentials: %s", error)

    return seal


def input_sha256(value: Any) -> str:
    """SHA-256 of an image or a motion: of the file, of all files of a folder, or of the values of an object."""
    if isinstance(value, Keypoints):
        arrays = [getattr(value, name) for name in ARRAYS]
    elif isinstance(value, Image.Image | np.ndarray):
        arrays = [np.asarray(value)]
    elif isinstance(value, list | tuple):
        arrays = [np.asarray(frame) for frame in value]
    elif hasattr(value, "shape"):  # skeletons that are drawn on demand
        arrays = [value[start : start + 1] for start in range(value.shape[0])]
    else:
        path = Path(value)
        if path.is_file():
            return sha256_file(path)
        lines = [f"{sha256_file(file)}  {file.name}\n" for file in sorted(path.iterdir()) if file.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _is_convincing(item: Prepared) -> bool:
    """Return True for videos of a checkpoint that are not tiny; the small model's drawings deceive nobody."""
    return item.origin.model_sha256 is not None and min(item.image.shape[:2]) >= MIN_SIDE


def _signer(item: Prepared, options: OutputOptions) -> Signer | None:
    if options.credentials or options.certificate:
        return _load_signer(options)
    if options.credentials is False or not _is_convincing(item):
        return None
    if not is_available():
        logger.info("content credentials are not signed: %s", INSTALL)
        return None
    try:
        return _load_signer(options)
    except InputError as error:
        logger.warning("content credentials are not signed: %s", error)
        return None


def _load_signer(options: OutputOptions) -> Signer:
    certificate, private_key = (
        None if path is None else Path(path) for path in (options.certificate, options.private_key)
    )
    return load_signer(certificate, private_key)
