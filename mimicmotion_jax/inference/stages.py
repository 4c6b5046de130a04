"""The jitted stages of generation, in the order in which `engine` calls them.

Networks are NNX modules and so pytrees: each stage takes the ones it needs as arguments and compiles once per shape.
"""

import functools

import jax
import jax.numpy as jnp
from beartype import beartype
from einops import rearrange, repeat
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8, jaxtyped

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.edm import guide, precondition
from mimicmotion_jax.diffusion.noise import step_noise
from mimicmotion_jax.diffusion.sampler import Features, GroupedPlan, denoise
from mimicmotion_jax.diffusion.solvers import SolverName, latents_of, start
from mimicmotion_jax.models.encode import to_signed
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.unet import UNet, UNetConditions
from mimicmotion_jax.models.vae import VAE


@jax.jit
@jaxtyped(typechecker=beartype)
def scale(noise: Float[Array, "*shape"], factor: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Multiply noise by its strength, in a program of its own: fused with what follows it would round differently."""
    return noise * factor


@functools.partial(jax.jit, donate_argnames="features")
@jaxtyped(typechecker=beartype)
def add_pose_features(
    pose_net: PoseNet,
    features: Float[Array, "b f h w c"],
    pixels: UInt8[Array, "b n height width 3"],
    start: Int[Array, ""],
) -> Float[Array, "b f h w c"]:
    """Write PoseNet's features of the drawn poses start ... start + n - 1 into the buffer of the whole video.

    `features` are those of `PoseNet.stem`; the rest is left to `run_denoising`, window by window.
    """
    new = pose_net.stem(to_signed(pixels)).astype(features.dtype)
    return jax.lax.dynamic_update_slice(features, new, (0, start, 0, 0, 0))


@functools.partial(jax.jit, static_argnames=("num_frames", "guided"))
@jaxtyped(typechecker=beartype)
def make_conditions(
    unet: UNet,
    context: Float[Array, "b d"],
    time_ids: Float[Array, "b 3"],
    num_frames: int,
    guided: bool,
) -> UNetConditions:
    """The UNet's constants; with guidance for a batch of both branches, the unconditional one (zeros) first."""
    if guided:
        context = jnp.concatenate([jnp.zeros_like(context), context])
        time_ids = jnp.concatenate([time_ids, time_ids])
    return unet.conditions(context, time_ids, num_frames)


@functools.partial(
    jax.jit, static_argnames=("guided", "in_turn", "solver", "mesh", "depth", "keep"), donate_argnames="state"
)
@jaxtyped(typechecker=beartype)
def run_denoising(
    unet: UNet,
    pose_net: PoseNet,
    state: Float[Array, "b f h w c_all"],
    sigmas: Float[Array, " levels"],
    previous: Float[Array, ""],
    pose_strengths: Float[Array, " steps"],
    plan: GroupedPlan,
    conditions: UNetConditions,
    image_latents: Float[Array, "b h w c"],
    pose_features: Float[Array, "b f h w kept"],
    guidance_scales: Float[Array, " f"],
    seeds: Integer[Array, " b"],
    first_step: Integer[Array, ""],
    features: Features = None,
    *,
    guided: bool,
    in_turn: bool = False,
    solver: SolverName = "euler",
    mesh: Mesh,
    depth: int = 1,
    keep: bool = False,
) -> tuple[Float[Array, "b f h w c_all"], Features]:
    """The denoising loop from sigmas[0] to sigmas[-1]. Guidance: v = v_uncond + scale (v_cond - v_uncond).

    The unconditional branch has a zero CLIP embedding, a zero reference latent and no pose features. The branches are
    predicted in one batch, or one after the other (`in_turn`), which halves the temporaries. `mesh` is a
    `sharding.window_mesh`. `previous`, `features` and `keep` are as in `sampler.denoise`; the features are the UNet's
    below its last `depth` layers (`UNet.predict`), of each window and branch. `first_step` is the number of that step
    in the whole video's; with it and `seeds` a stochastic solver draws its noise.
    """
    group, window_size = plan.indices.shape[1:]
    branches = 2 if guided else 1
    execution = sharding.sampling_execution(mesh)
    reference = repeat(image_latents, "b h w c -> b t h w c", t=window_size)

    def predict(
        windows: jax.Array, frames: jax.Array, sigma: jax.Array, step: jax.Array, features: Features
    ) -> tuple[jax.Array, Features]:
        c = precondition(sigma)
        poses = pose_net.head(jnp.moveaxis(pose_features[:, frames], 1, 0))  # [G, B, T, h, w, C0]
        poses *= pose_strengths[step].astype(poses.dtype)
        sample = jnp.concatenate([c.c_in * windows, jnp.broadcast_to(reference, windows.shape)], axis=-1)
        without = sample.at[..., windows.shape[-1] :].set(0)

        def run_unet(
            sample: jax.Array, poses: jax.Array, conditions: UNetConditions, deep: Features
        ) -> tuple[jax.Array, Features]:
            """Predict a batch [G, n, B, ...]; windows lead, so that devices have whole windows."""
            sample, poses = (rearrange(x, "g n b t h w c -> (g n b) t h w c") for x in (sample, poses))
            inputs = sample, jnp.full(len(sample), c.c_noise), conditions.tile(group), poses, execution
            out, deep = unet.predict(*inputs, depth=depth, deep=deep)
            return rearrange(out.astype(jnp.float32), "(g n b) t h w c -> n g b t h w c", g=group, b=len(state)), deep

        def run_branch(inputs: tuple[jax.Array, Features]) -> tuple[jax.Array, Features]:
            """Predict the unconditional branch (0) or the conditional one (1) alone."""
            branch, deep = inputs
            conditioned = branch == 1
            alone, drawn = jnp.where(conditioned, sample, without), jnp.where(conditioned, poses, 0)
            out, deep = run_unet(alone[:, None], drawn[:, None], conditions.part(branch, branches), deep)
            return out[0], deep if keep else None

        if not guided:
            out, deep = run_unet(sample[:, None], poses[:, None], conditions, features)
            return out[0], deep
        if in_turn:
            out, deep = jax.lax.map(run_branch, (jnp.arange(branches), features))
        else:
            stacked = jnp.stack([without, sample], axis=1), jnp.stack([jnp.zeros_like(poses), poses], axis=1)
            out, deep = run_unet(*stacked, conditions, features)
        return guide(out[0], out[1], guidance_scales[frames][:, None, :, None, None, None]), deep

    def noise(step: jax.Array) -> jax.Array:
        return step_noise(seeds, first_step + step, state.shape[1:])

    return denoise(predict, state, sigmas, plan, sharding.shard_windows(mesh), solver, previous, noise, features, keep)


@functools.partial(jax.jit, static_argnames="solver")
@jaxtyped(typechecker=beartype)
def start_solver(latents: Float[Array, "b f h w c"], solver: SolverName) -> Float[Array, "b f h w c_all"]:
    """State of the solver before the first step (`solvers.start`)."""
    return start(solver, latents)


@functools.partial(jax.jit, static_argnames="solver")
@jaxtyped(typechecker=beartype)
def solved(state: Float[Array, "b f h w c_all"], solver: SolverName) -> Float[Array, "b f h w c"]:
    """Latents of the solver's state."""
    return latents_of(solver, state)


@jax.jit
@jaxtyped(typechecker=beartype)
def all_finite(latents: Float[Array, "b f h w c"]) -> Bool[Array, ""]:
    """True if no latent is infinite or not a number."""
    return jnp.isfinite(latents).all()


@functools.partial(jax.jit, static_argnames="mesh")
@jaxtyped(typechecker=beartype)
def decode_chunks(vae: VAE, latents: Float[Array, "b n h w c"], *, mesh: Mesh) -> Float[Array, "b n height width 3"]:
    """Frames in [0, 1], float32, of chunks of latents."""
    frames = vae.decode(latents / vae.config.scaling_factor, sharding.decoding_execution(mesh))
    return jnp.clip(frames.astype(jnp.float32) / 2 + 0.5, 0, 1)
