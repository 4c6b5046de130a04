"""Outputs of the frozen networks for every frame of a record, computed once instead of in every epoch."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float16

from mimicmotion_jax import checkpoint
from mimicmotion_jax.data.dataset import EncodingInfo
from mimicmotion_jax.data.record import PoseVideo
from mimicmotion_jax.models import encode
from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import Crop


class Encodings(NamedTuple):
    """Encodings of all frames of a record."""

    latents: Float16[np.ndarray, "frames h w c"]
    embeddings: Float16[np.ndarray, "frames d"]


def describe_encodings(directory: epath.PathLike, width: int, height: int) -> EncodingInfo:
    """Describe the encodings that a checkpoint makes at this size in pixels.

    Raises:
        InputError: no checkpoint, or a size that its networks cannot take.
    """
    config = checkpoint.read_config(directory)
    downscale, multiple = config.vae.downscale, config.size_multiple
    if width % multiple or height % multiple:
        raise InputError(f"size={width},{height} does not work with {directory}; use multiples of {multiple}.")
    return EncodingInfo(
        width=width,
        height=height,
        latent_shape=(height // downscale, width // downscale, config.vae.latent_channels),
        embedding_size=config.image_encoder.projection_dim,
        checkpoint=checkpoint.manifest_sha256(directory),
    )


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Frozen networks of a checkpoint."""

    vae: VAE
    image_encoder: CLIPImageEncoder
    batch_size: int

    @classmethod
    def load(cls, directory: epath.PathLike, batch_size: int) -> "Encoder":
        """Load the VAE and the image encoder in float32: they run only once, and their outputs are stored.

        Raises:
            InputError: no checkpoint, or a damaged one.
        """
        config = checkpoint.read_config(directory)
        vae, image_encoder = (
            checkpoint.load_network(directory, name, config, "float32") for name in ("vae", "image_encoder")
        )
        return cls(vae, image_encoder, batch_size)

    def __call__(self, record: PoseVideo, width: int, height: int) -> Encodings:
        """Encode all stored frames, resized and cropped in the middle to a size in pixels.

        Raises:
            InputError: a damaged record.
        """
        crop = Crop.plan((record.keypoints.height, record.keypoints.width), (height, width))
        latents, embeddings = [], []
        for start in range(0, record.num_frames, self.batch_size):
            numbers = range(start, min(start + self.batch_size, record.num_frames))
            pixels = crop.pixels(record.frames(numbers))
            # A last, smaller batch would compile anew.
            padded = np.pad(pixels, ((0, self.batch_size - len(pixels)), (0, 0), (0, 0), (0, 0)))
            with jax.default_matmul_precision("highest"):
                latent = encode.encode_image(self.vae, padded, np.zeros(padded.shape, np.float32))
                embedding = encode.embed_image(self.image_encoder, padded)
            latents.append(np.asarray(latent, np.float16)[: len(pixels)])
            embeddings.append(np.asarray(embedding, np.float16)[: len(pixels)])
        return Encodings(np.concatenate(latents), np.concatenate(embeddings))
