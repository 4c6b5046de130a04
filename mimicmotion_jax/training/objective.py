"""The training objective (paper, sections 3.1 and 3.4, appendix A): EDM noise, drop-out of conditions, weighted hands.

loss = mean of w |F(c_in x; c_noise, conditions) - v|^2 with x = latents + sigma noise, v as in `edm.velocity`,
w = `hand_weight` inside hand regions and 1 elsewhere.

Everything random about sample number i is drawn from the key (seed, i), so that no split of a batch changes it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from beartype import beartype
from einops import repeat
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32, jaxtyped
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.diffusion.edm import log_normal_sigmas, precondition, velocity
from mimicmotion_jax.models.encode import to_signed
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.runtime.seeds import fold_seed


@config_dataclass
class ObjectiveConfig:
    """The paper's values; where it gives none, those of public SVD trainers."""

    sigma_log_mean: float = 0.5
    """Mean of the logarithm of the noise level."""
    sigma_log_std: Annotated[float, Field(gt=0)] = 1.4
    """Standard deviation of the logarithm of the noise level."""
    hand_weight: Annotated[float, Field(ge=0)] = 10.0
    """Weight of the loss inside hand regions."""
    dropout: Annotated[float, Field(ge=0, le=1 / 3)] = 0.1
    """Share of samples that lose the CLIP embedding, the reference latents, or both: this much each."""
    drop_pose: bool = True
    """Drop the pose if both are dropped, as in the unconditional branch of guidance."""
    noise_aug_strength: Annotated[float, Field(ge=0, le=10)] = 0.02
    """Median strength of the noise on the reference's pixels, on which the model is conditioned."""
    noise_aug_log_std: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Standard deviation of the logarithm of that strength."""
    fps: Annotated[int, Field(ge=1, le=1000)] = 7
    """Frame rate that the model is conditioned on, constant."""
    motion_bucket_id: Annotated[int, Field(ge=0, le=1023)] = 127
    """Amount of motion that the model is conditioned on, constant."""


class Encoded(NamedTuple):
    """Batch after the frozen encoders."""

    # Number of the sample in the infinite shuffled sequence.
    index: UInt32[Array, " b"]  # pyright: ignore[reportIncompatibleMethodOverride]
    latents: Float[Array, "b f h w c"]  # clean, multiplied by the scaling factor
    image_latents: Float[Array, "b h w c"]  # of the reference, not multiplied
    context: Float[Array, "b d"]
    poses: UInt8[Array, "b f height width 3"]
    hand_mask: Bool[Array, "b f h w"]


class Draws(NamedTuple):
    """Random numbers of a batch."""

    sigma: Float[Array, " b"]
    noise: Float[Array, "b f h w c"]
    keep_context: Bool[Array, " b"]
    keep_image: Bool[Array, " b"]
    keep_pose: Bool[Array, " b"]
    noise_aug: Float[Array, " b"]


class Networks(NamedTuple):
    """Trained networks."""

    unet: UNet
    pose_net: PoseNet


@jaxtyped(typechecker=beartype)
def sample_keys(seed: int, index: UInt32[Array, " b"]) -> dict[str, Array]:
    """Derive one key per sample for each purpose."""

    def split(i: Array) -> Array:
        return jax.random.split(jax.random.fold_in(jax.random.key(fold_seed(seed)), i), 5)

    keys = jax.vmap(split)(index)
    return dict(zip(("sigma", "noise", "dropout", "noise_aug", "pixels"), keys.T, strict=True))


@jaxtyped(typechecker=beartype)
def draw_noise_aug(config: ObjectiveConfig, keys: Mapping[str, Array]) -> Float[Array, " b"]:
    """Draw the strength of the noise on each reference image: log-normal with median `noise_aug_strength`."""
    normal = jax.vmap(jax.random.normal)(keys["noise_aug"])
    return config.noise_aug_strength * jnp.exp(config.noise_aug_log_std * normal)


@jaxtyped(typechecker=beartype)
def draw(config: ObjectiveConfig, seed: int, index: UInt32[Array, " b"], shape: tuple[int, ...]) -> Draws:
    """Draw everything random about the samples `index`; `shape` is that of one sample's latents.

    With r uniform and p = `dropout`: CLIP embedding dropped for r < 2p, reference latents dropped for p <= r < 3p.
    """
    keys = sample_keys(seed, index)
    uniform = jax.vmap(jax.random.uniform)(keys["dropout"])
    p = config.dropout
    drop_context, drop_image = uniform < 2 * p, (p <= uniform) & (uniform < 3 * p)
    return Draws(
        sigma=log_normal_sigmas(
            jax.vmap(jax.random.normal)(keys["sigma"]), config.sigma_log_mean, config.sigma_log_std
        ),
        noise=jax.vmap(lambda key: jax.random.normal(key, shape))(keys["noise"]),
        keep_context=~drop_context,
        keep_image=~drop_image,
        keep_pose=~(drop_context & drop_image & config.drop_pose),
        noise_aug=draw_noise_aug(config, keys),
    )


@jaxtyped(typechecker=beartype)
def predict(
    networks: Networks,
    noisy: Float[Array, "b f h w c"],
    sigma: Float[Array, " b"],
    image_latents: Float[Array, "b h w c"],
    context: Float[Array, "b d"],
    poses: UInt8[Array, "b f height width 3"],
    keep_pose: Bool[Array, " b"],
    time_ids: Float[Array, "b 3"],
    execution: Execution = DEFAULT,
) -> Float[Array, "b f h w c"]:
    """Predict v for noisy latents, float32: the forward pass of the pipeline, with a noise level per sample."""
    c = precondition(sigma)
    num_frames = noisy.shape[1]
    reference = repeat(image_latents, "b h w c -> b f h w c", f=num_frames)
    sample = jnp.concatenate([per_sample(c.c_in) * noisy, reference.astype(noisy.dtype)], axis=-1)
    conditions = networks.unet.conditions(context, time_ids, num_frames)
    pose_features = execution.checkpoint(lambda net, pixels: net(to_signed(pixels)))(networks.pose_net, poses)
    pose_features *= per_sample(keep_pose).astype(pose_features.dtype)
    return networks.unet(sample, c.c_noise, conditions, pose_features, execution).astype(jnp.float32)


def predictor(
    batch: Encoded, draws: Draws, config: ObjectiveConfig, execution: Execution = DEFAULT
) -> Callable[[Networks, Float[Array, "b f h w c"], Float[Array, " b"]], Float[Array, "b f h w c"]]:
    """Return a function (networks, noisy, sigma) -> v with the conditions that `draws` leave of a batch."""
    batch_size = batch.index.shape[0]
    fixed = jnp.broadcast_to(jnp.array([config.fps - 1, config.motion_bucket_id], jnp.float32), (batch_size, 2))
    return functools.partial(
        predict,
        image_latents=batch.image_latents * draws.keep_image[:, None, None, None],
        context=batch.context * draws.keep_context[:, None],
        poses=batch.poses,
        keep_pose=draws.keep_pose,
        time_ids=jnp.concatenate([fixed, draws.noise_aug[:, None]], axis=1),
        execution=execution,
    )


@jaxtyped(typechecker=beartype)
def objective(
    networks: Networks, batch: Encoded, draws: Draws, config: ObjectiveConfig, execution: Execution = DEFAULT
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the loss, and the sum of squared errors and the number of positions in and out of hand regions."""
    noisy = batch.latents + per_sample(draws.sigma) * draws.noise
    prediction = predictor(batch, draws, config, execution)(networks, noisy, draws.sigma)
    target = velocity(batch.latents, draws.noise, per_sample(draws.sigma))
    error = jnp.square(prediction - target).mean(-1)
    return weighted_loss(error, error, batch.hand_mask, config.hand_weight)


def weighted_loss(
    loss: Float[Array, "b f h w"],
    error: Float[Array, "b f h w"],
    hand_mask: Bool[Array, "b f h w"],
    hand_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Average the loss, weighted inside hand regions, and sum the squared errors in and out of them."""
    mask = hand_mask.astype(jnp.float32)
    sums = {
        "hand_error": jnp.sum(mask * error),
        "hand_count": jnp.sum(mask),
        "other_error": jnp.sum((1 - mask) * error),
        "other_count": jnp.sum(1 - mask),
    }
    return jnp.mean((1 + (hand_weight - 1) * mask) * loss), sums


def per_sample(x: Int[Array, " b"] | Float[Array, " b"] | Bool[Array, " b"]) -> Array:
    """Add axes behind that of samples, for arrays [b, f, h, w, c]."""
    return x[:, None, None, None, None]
