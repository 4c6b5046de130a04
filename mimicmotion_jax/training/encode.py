"""Encoding of a batch by the frozen VAE and CLIP, before the training step."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.models import encode
from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.training.objective import Encoded, ObjectiveConfig, draw_noise_aug, sample_keys

BY_FRAME = frozenset({"frames", "latents", "poses", "hand_mask"})
"""Names of the arrays of a batch that have an axis of frames."""


@functools.partial(jax.jit, static_argnames=("config", "seed", "mesh"))
def encode_pixels(
    vae: VAE,
    image_encoder: CLIPImageEncoder,
    batch: Mapping[str, jax.Array],
    config: ObjectiveConfig,
    seed: int,
    mesh: Mesh,
) -> Encoded:
    """Encode clips (the mode of the VAE's distribution) and reference images (VAE and CLIP).

    Args:
        vae: frozen.
        image_encoder: frozen.
        batch: from `data.loader.ClipLoader`, with pixels.
        config: its noise augmentation is added to the reference's pixels for the VAE, not for CLIP.
        seed: of that noise.
        mesh: for training; each device encodes one frame at a time.
    """
    keys = sample_keys(seed, batch["index"])
    reference = batch["reference"]
    noise = jax.vmap(lambda key: jax.random.normal(key, reference.shape[1:]))(keys["pixels"])
    strength = draw_noise_aug(config, keys)[:, None, None, None]
    latents = _encode_frames(vae, batch["frames"], mesh) * vae.config.scaling_factor
    return Encoded(
        index=batch["index"],
        latents=latents.astype(jnp.float32),
        image_latents=encode.encode_image(vae, reference, strength * noise).astype(jnp.float32),
        context=encode.embed_image(image_encoder, reference).astype(jnp.float32),
        poses=batch["poses"],
        hand_mask=batch["hand_mask"],
    )


def take_encodings(batch: Mapping[str, jax.Array], scaling_factor: float) -> Encoded:
    """Make the same of a batch with stored encodings, whose latents are not multiplied by the scaling factor."""
    return Encoded(
        index=batch["index"],
        latents=batch["latents"] * scaling_factor,
        image_latents=batch["reference_latents"],
        context=batch["embedding"],
        poses=batch["poses"],
        hand_mask=batch["hand_mask"],
    )


def _encode_frames(vae: VAE, frames: jax.Array, mesh: Mesh) -> jax.Array:
    """Encode [B, F, height, width, 3] to latents [B, F, h, w, c], frame by frame on each device."""
    split = {"b": frames.shape[0], "s": mesh.shape[sharding.FRAMES]}
    rows = rearrange(frames, "b (s l) h w c -> l b s h w c", s=split["s"])
    by_frame = sharding.shard_frames(mesh)

    def encode_row(row: jax.Array) -> jax.Array:
        pixels = rearrange(jax.lax.with_sharding_constraint(row, by_frame), "b s h w c -> (b s) h w c")
        return rearrange(vae.encode(encode.to_signed(pixels))[0], "(b s) h w c -> b s h w c", **split)

    return rearrange(jax.lax.map(encode_row, rows), "l b s h w c -> b (s l) h w c")
