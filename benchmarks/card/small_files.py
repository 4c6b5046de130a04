"""Files of the small model: a checkpoint in the usual layout, and the same packed into a few parts.

cat RESULTS/small-model.tar.* | tar -x -C FOLDER        makes a checkpoint of the parts, in an empty FOLDER
"""

import dataclasses
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from mimicmotion_jax import checkpoint
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.export import manifest_source, sampling_options
from mimicmotion_jax.training.networks import TRAINED
from mimicmotion_jax.training.template import Template

VARIABLE = "SMALL_MODEL_FROM"
"""Environment variable: folder of a checkpoint, or of its parts, to go on from."""

_ARCHIVE = "small-model.tar"
_PART_BYTES = 15 * 2**20


class Weights:
    """Networks of the run in the host's memory, their sizes and origin, and their checkpoint.

    Args:
        model: sizes; those of the VAE and the image encoder are an earlier run's, if there is one.
        output: folder of results.

    Attributes:
        folder: of the checkpoint.
        earlier: checkpoint to go on from, or None.
        model: sizes.
        networks: by name, with NumPy arrays.
        sources: entries for the manifest about their origin.
        trained: number of steps that UNet and PoseNet were trained for in this run, as a line for the manifest.
    """

    def __init__(self, model: ModelConfig, output: Path):
        self.model, self._output = model, output
        self.folder, self.earlier = Path(tempfile.mkdtemp()) / "checkpoint", find_earlier(output)
        self.networks: dict[str, nnx.Module] = {}
        self.sources: list[Mapping[str, Any]] = []
        self.trained: str | None = None
        if self.earlier is not None:
            self.model = with_encoders(model, checkpoint.read_config(self.earlier))
            self.sources = list(checkpoint.read_manifest(self.earlier)["sources"])

    def missing(self) -> list[str]:
        """Names of the networks that no earlier checkpoint has in these sizes."""
        if self.earlier is None:
            return list(NETWORKS)
        found = checkpoint.read_config(self.earlier)
        same = found.unet == self.model.unet and found.pose_net == self.model.pose_net
        usable = checkpoint.read_manifest(self.earlier)["networks"].keys() - (() if same else TRAINED)
        return [name for name in NETWORKS if name not in usable]

    def load(self) -> None:
        """Load what the earlier checkpoint has."""
        if self.earlier is not None:
            names = NETWORKS.keys() - set(self.missing())
            self.networks = jax.device_get(self._read(self.earlier, "float32", names))

    def fill(self, params: Mapping[str, Any], name: str) -> None:
        """Set a network's parameters, from their dotted paths with its name first."""
        network = Template(self.model, (name,)).networks(jax.device_get(dict(params)))[name]
        self.networks[name] = network

    def note(self, line: str, name: str) -> dict[str, Any]:
        """Describe a network's origin for the manifest."""
        return manifest_source(line, nnx.state(self.networks[name]))

    def export(self, config: TrainConfig) -> int:
        """Write the checkpoint in float16, as `from_pretrained` reads it, and pack it; returns its size in bytes.

        Args:
            config: of the training; its drawing and sampling become the checkpoint's defaults.
        """
        checkpoint.save_checkpoint(
            self.folder,
            self.model,
            {name: jax.tree.map(shorten, nnx.state(network)) for name, network in self.networks.items()},
            dtype="float16",
            sources=self.sources if self.trained is None else [*self.sources, self.note(self.trained, "unet")],
            sampling=sampling_options(config, self.model.size_multiple),
            overwrite=True,
            progress=False,
        )
        return pack(self.folder, self._output)

    def exported(self, dtype: str) -> dict[str, nnx.Module]:
        """Read the networks that were exported last, onto the device."""
        return self._read(self.folder, dtype, NETWORKS)

    def _read(self, folder: Path, dtype: str, names: Iterable[str]) -> dict[str, nnx.Module]:
        return {name: checkpoint.load_network(folder, name, self.model, dtype) for name in names}


def shorten(x: np.ndarray) -> np.ndarray:
    """Round a kernel to 7 significant bits, one less than bfloat16 has: three quarters of the space, compressed."""
    if x.ndim < 2:
        return x
    mantissa, exponent = np.frexp(np.asarray(x, np.float32))
    return np.ldexp(np.round(mantissa * 2**7) / 2**7, exponent)


def with_encoders(model: ModelConfig, found: ModelConfig) -> ModelConfig:
    """Sizes with another model's VAE and image encoder."""
    channels = found.vae.latent_channels
    unet = dataclasses.replace(model.unet, in_channels=2 * channels, out_channels=channels)
    return dataclasses.replace(model, unet=unet, vae=found.vae, image_encoder=found.image_encoder)


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
    Image.fromarray(pixels).save(path)
