"""What a run gives: how good reconstructions are on the way, and at the end a checkpoint of encoders."""

import dataclasses
import hashlib
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
from mimicmotion_jax.training.autoencoder.step import VAETemplate
from mimicmotion_jax.training.state import Params
from mimicmotion_jax.video.compose import side_by_side

_SCALING_CLIPS = 64


class Validation:
    """The same few clips, encoded and decoded with ever better parameters.

    Raises:
        InputError: no dataset there, or none with a video that is long enough.
    """

    def __init__(self, config: VAETrainConfig, template: VAETemplate):
        data = dataclasses.replace(_plain_clips(config.data), dataset=config.validation or config.data.dataset)
        loader = ClipLoader(data, config.num_validation, config.seed + 1, downscale=template.config.downscale)
        batch = next(loader)
        loader.close()
        self._clips: UInt8[np.ndarray, "n f height width 3"] = batch["frames"]
        size = template.config.downscale
        self._hands = batch["hand_mask"].repeat(size, axis=2).repeat(size, axis=3)
        self._reconstruct = jax.jit(lambda params, frames: _reconstruct(template.network(params), frames))

    def __call__(self, params: Params, picture: epath.Path) -> dict[str, float]:
        """Mean PSNR (dB) of all frames, `psnr`, and of the hands in them, `psnr_hands` (left out where there are none).

        Args:
            params: of the VAE.
            picture: a PNG to write: the first frame of each clip, true and reconstructed.
        """
        decoded = np.concatenate([self._reconstruct(params, clip[None]) for clip in self._clips])
        pairs = zip(self._clips[:, 0], decoded[:, 0], strict=True)
        _write_png(picture, np.concatenate([side_by_side(pair, labels=("true", "reconstructed"))[0] for pair in pairs]))
        frames, truth, hands = (rearrange(x, "n f ... -> (n f) ...") for x in (decoded, self._clips, self._hands))
        values = {"psnr": average_psnr(psnr(frames, truth)), "psnr_hands": average_psnr(psnr(frames, truth, hands))}
        return {name: value for name, value in values.items() if np.isfinite(value)}


def measure_scaling_factor(config: VAETrainConfig, vae: VAE, progress: bool = True) -> float:
    """What latents of the training videos are multiplied by to have standard deviation 1.

    Latent diffusion (Rombach et al. 2022, appendix G) takes one batch of draws; this takes the distributions' modes,
    which is what is diffused, of 64 clips.
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
    """Write a checkpoint of this VAE and of an image encoder that is drawn from the seed."""
    model = config.model(scaling_factor)
    random = init_network("image_encoder", model, config.seed)
    states = {"vae": nnx.state(vae), "image_encoder": nnx.state(random)}
    # Stored encodings name their checkpoint by a hash of its manifest, so two runs must not have the same one.
    origins = {"vae": "VAE trained from scratch", "image_encoder": f"image encoder initialised with seed {config.seed}"}
    sources = [{"name": origins[name], **_digest(state)} for name, state in states.items()]
    checkpoint.save_checkpoint(directory, model, states, sources=sources, overwrite=True, progress=False)


def _digest(state: nnx.State) -> dict[str, str | int]:
    """As for a file of weights: a hash of the arrays with their names."""
    params = checkpoint.flat_params(state)
    digest = hashlib.sha256()
    for key, value in params.items():
        digest.update(key.encode())
        digest.update(np.asarray(value).tobytes())
    return {"sha256": digest.hexdigest(), "keys": len(params)}


def _plain_clips(data: DataConfig) -> DataConfig:
    """Clips as they are, read in this process."""
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
