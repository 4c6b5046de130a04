"""One training step of UNet and PoseNet: gradients over the parts of a batch, then the optimizer."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mimicmotion_jax import sharding
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.distillation import Teaching, distillation_objective, draw_levels
from mimicmotion_jax.training.objective import Draws, Encoded, Networks, draw, objective
from mimicmotion_jax.training.state import Metrics, Params, TrainState, apply_gradients
from mimicmotion_jax.training.template import Template

TEACHER, TARGET = "teacher.", "target."
"""Beginnings of the names of parameters that belong to the teacher, and to the student's moving average."""


def make_train_step(config: TrainConfig, template: Template, mesh: Mesh) -> jax.stages.Wrapped:
    """Make the jitted step (state, fixed parameters, batch) -> (state, metrics); the state's memory is reused.

    The metrics are those of `apply_gradients` and the unweighted mean errors `loss_hands` and `loss_elsewhere`.
    """
    loss_and_grads = jax.value_and_grad(functools.partial(_loss, config, template, mesh), has_aux=True)

    def step(state: TrainState, fixed: Params, batch: Encoded) -> tuple[TrainState, Metrics]:
        if config.distillation is not None:
            fixed = fixed | {TARGET + key: value for key, value in state.averaged_params.items()}
        loss, sums, grads = _accumulate(loss_and_grads, config.accumulation, state.params, fixed, batch, mesh)
        grads = jax.lax.with_sharding_constraint(grads, sharding.shard_parameters(mesh, grads))
        state, metrics = apply_gradients(state, loss, grads, config.optimizer, config.steps)
        means = {
            "loss_hands": sums["hand_error"] / jnp.maximum(sums["hand_count"], 1),
            "loss_elsewhere": sums["other_error"] / jnp.maximum(sums["other_count"], 1),
        }
        return state, metrics | means

    return jax.jit(step, donate_argnums=0)


def _loss(
    config: TrainConfig, template: Template, mesh: Mesh, params: Params, fixed: Params, batch: Encoded
) -> tuple[Float[Array, ""], Metrics]:
    dtype = jnp.dtype(config.dtype)
    # Cast before parameters are gathered, so that devices exchange them in the short format.
    cast = {key: value.astype(dtype) for key, value in (params | fixed).items()}
    cast = jax.lax.with_sharding_constraint(cast, sharding.shard_parameters(mesh, cast))

    def networks(role: str = "") -> Networks:
        """Build the networks of a role; parameters that only the student has are shared with it."""
        own = {key: cast.get(role + key, cast[key]) for key in template.shapes}
        return Networks(**template.networks(sharding.gather_parameters(mesh, own)))

    execution = sharding.training_execution(mesh, config.remat)
    shape, distillation = batch.latents.shape[1:], config.distillation
    if distillation is None:
        draws = _shard_noise(draw(config.objective, config.seed, batch.index, shape), mesh)
        return objective(networks(), batch, draws, config.objective, execution)
    draws, lower = draw_levels(distillation, config.objective, config.seed, batch.index, shape)
    teaching, draws = Teaching(networks(TEACHER), networks(TARGET)), _shard_noise(draws, mesh)
    return distillation_objective(networks(), teaching, batch, draws, lower, config.objective, distillation, execution)


def _shard_noise(draws: Draws, mesh: Mesh) -> Draws:
    return draws._replace(noise=jax.lax.with_sharding_constraint(draws.noise, sharding.shard_frames(mesh)))


def _accumulate(
    loss_and_grads: Callable, parts: int, params: Params, fixed: Params, batch: Encoded, mesh: Mesh
) -> tuple[Float[Array, ""], Metrics, Params]:
    """Mean loss, summed metrics and mean gradient over `parts` equal parts of the batch, computed one by one."""
    if parts == 1:
        (loss, sums), grads = loss_and_grads(params, fixed, batch)
        return loss, sums, grads

    # Every device keeps its own samples: part p takes the p-th of every `parts` neighbours.
    split = jax.tree.map(lambda x: rearrange(x, "(b p) ... -> p b ...", p=parts), batch)

    def add(total: tuple, part: Encoded) -> tuple[tuple, None]:
        (loss, sums), grads = loss_and_grads(params, fixed, part)
        return jax.tree.map(jnp.add, total, (loss, sums, grads)), None

    (loss, sums), grads = jax.eval_shape(loss_and_grads, params, fixed, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, sums, grads))
    zeros = jax.lax.with_sharding_constraint(zeros, sharding.shard_parameters(mesh, zeros))
    (loss, sums, grads), _ = jax.lax.scan(add, zeros, split)
    return loss / parts, sums, jax.tree.map(lambda g: g / parts, grads)
