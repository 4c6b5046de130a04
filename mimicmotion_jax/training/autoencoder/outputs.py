"""Results of the VAE's training: quality of reconstructions on the way, and a checkpoint of encoders at the end."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from etils import epath
from flax import nnx
from jaxtyping import Array, UInt8
from PIL import Image
from tqdm import tqdm

from mimicmotion_jax import checkpoint
from mimicmotion_jax.data.clips import DataConfig
from mimicmotion_jax.data.loader import ClipLoader
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.models import encode
from mimicmotion_jax.models.build import init_network
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.out_of_memory import fetch
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.export import manifest_source
from mimicmotion_jax.training.state import Params
from mimicmotion_jax.training.template import Template
from mimicmotion_jax.video.compose import side_by_side

_SCALING_CLIPS = 64


class Validation:
    """Reconstruction of the same few clips at every call.

    Raises:
        InputError: no dataset, or no video in it that is long enough.
    """

    def __init__(self, config: VAETrainConfig, template: Template):
        data = dataclasses.replace(_plain_clips(config.data), dataset=config.validation or config.data.dataset)
        loader = ClipLoader(data, config.num_validation, config.seed + 1, downscale=config.vae.downscale)
        batch = next(loader)
        loader.close()
        self._clips: UInt8[np.ndarray, "n f height width 3"] = batch["frames"]
        size = config.vae.downscale
        self._hands = batch["hand_mask"].repeat(size, axis=2).repeat(size, axis=3)
        self._reconstruct = jax.jit(lambda params, frames: _reconstruct(template.networks(params)["vae"], frames))

    def __call__(self, params: Params, picture: epath.Path) -> dict[str, float]:
        """Return the mean PSNR (dB) of all frames, `psnr`, and of hands, `psnr_hands` (left out without hands).

        Args:
            params: of the VAE.
            picture: PNG to write: the first frame of each clip, true and reconstructed.
        """
        decoded = np.concatenate([self._reconstruct(params, clip[None]) for clip in self._clips])
        pairs = zip(self._clips[:, 0], decoded[:, 0], strict=True)
        _write_png(picture, np.concatenate([side_by_side(pair, labels=("true", "reconstructed"))[0] for pair in pairs]))
        frames, truth, hands = (rearrange(x, "n f ... -> (n f) ...") for x in (decoded, self._clips, self._hands))
        values = {"psnr": average_psnr(psnr(frames, truth)), "psnr_hands": average_psnr(psnr(frames, truth, hands))}
        return {name: value for name, value in values.items() if np.isfinite(value)}


def measure_scaling_factor(config: VAETrainConfig, vae: VAE, progress: bool = True) -> float:
    """Measure the factor that gives latents of the training videos a standard deviation of 1.

    Latent diffusion (Rombach et al. 2022, appendix G) measures one batch of draws; this takes the modes of the
    distributions, which are what is diffused, of 64 clips.
    """
    loader = ClipLoader(_plain_clips(config.data), 1, config.seed + 2, downscale=vae.config.downscale)
    to_latents = jax.jit(lambda vae, frames: vae.encode(encode.to_signed(frames))[0])
    with tqdm(total=_SCALING_CLIPS, desc="Measuring latents", unit="clip", disable=not progress) as bar:
        latents = []
        for _ in range(_SCALING_CLIPS):
            latents.append(fetch(to_latents(vae, next(loader)["frames"][0])))
            bar.update()
    loader.close()
    return float(1 / np.std(latents, dtype=np.float64))


def export_encoders(directory: epath.Path, config: VAETrainConfig, vae: VAE, scaling_factor: float) -> None:
    """Write a checkpoint of this VAE and of an image encoder that is initialised from the seed."""
    model = config.model(scaling_factor)
    random = init_network("image_encoder", model, config.seed)
    states = {"vae": nnx.state(vae), "image_encoder": nnx.state(random)}
    origins = {"vae": "VAE trained from scratch", "image_encoder": f"image encoder initialised with seed {config.seed}"}
    sources = [manifest_source(origins[name], state) for name, state in states.items()]
    checkpoint.save_checkpoint(directory, model, states, sources=sources, overwrite=True, progress=False)


def _plain_clips(data: DataConfig) -> DataConfig:
    """Clips without augmentation, read in this process."""
    return dataclasses.replace(data, flip=False, random_crop=False, num_workers=0)


def _reconstruct(vae: VAE, frames: UInt8[Array, "b f height width 3"]) -> UInt8[Array, "b f height width 3"]:
    mean, _ = vae.encode(encode.to_signed(rearrange(frames, "b f h w c -> (b f) h w c")))
    decoded = vae.decode(rearrange(mean, "(b f) h w c -> b f h w c", b=len(frames)))
    return jnp.round((jnp.clip(decoded, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def _write_png(path: epath.Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getvalue())
