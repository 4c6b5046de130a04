"""Files of the small model: a checkpoint in the usual layout, and the same packed into a few parts.

cat RESULTS/small-model.tar.* | tar -x -C FOLDER        makes a checkpoint of the parts, in an empty FOLDER
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from PIL import Image

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.export import sampling_options

VARIABLE = "SMALL_MODEL_FROM"
"""Environment variable: folder of a checkpoint, or of its parts, to go on from."""

_ARCHIVE = "small-model.tar"
_PART_BYTES = 15 * 2**20


def export(
    folder: Path,
    model: ModelConfig,
    networks: Mapping[str, nnx.Module],
    config: TrainConfig,
    sources: Sequence[Mapping[str, Any]],
) -> None:
    """Write a checkpoint in float16 that `MimicMotionPipeline.from_pretrained` reads.

    Args:
        folder: new, or an earlier checkpoint, which is replaced.
        model: sizes.
        networks: all four by name.
        config: of the training; its drawing and sampling become the checkpoint's defaults.
        sources: entries for the manifest about the origin of the networks.
    """
    states = {name: nnx.state(network) for name, network in networks.items()}
    sampling = sampling_options(config, model.size_multiple)
    checkpoint.save_checkpoint(
        folder, model, states, dtype="float16", sources=sources, sampling=sampling, overwrite=True, progress=False
    )


def pack(folder: Path, output: Path) -> int:
    """Write a folder's files into OUTPUT/small-model.tar.000, … of at most 15 MiB; returns the number of bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.add(path, path.relative_to(folder).as_posix())
    parts = [content.getbuffer()[start : start + _PART_BYTES] for start in range(0, content.tell(), _PART_BYTES)]
    output.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        partial = output / f"{_ARCHIVE}.partial"
        partial.write_bytes(part)
        os.replace(partial, output / f"{_ARCHIVE}.{number:03d}")
    for path in output.glob(f"{_ARCHIVE}.*"):
        if path.suffix[1:].isdigit() and int(path.suffix[1:]) >= len(parts):
            path.unlink()
    return content.tell()


def find_earlier(output: Path) -> Path | None:
    """Checkpoint to go on from: that which the variable names, or an earlier run's in the folder of results."""
    folder = Path(os.environ.get(VARIABLE) or output)
    if (folder / "manifest.json").is_file():
        return folder
    parts = sorted(folder.glob(f"{_ARCHIVE}.[0-9]*"))
    if not parts:
        if VARIABLE in os.environ:
            raise FileNotFoundError(f"{folder} holds neither a checkpoint nor parts of one")
        return None
    unpacked = Path(tempfile.mkdtemp())
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
        archive.extractall(unpacked, filter="data")
    return unpacked


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, optimize=True)
