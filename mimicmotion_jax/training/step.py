"""One training step: gradients over the parts of a batch, then `update`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mimicmotion_jax import sharding
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.objective import Encoded, draw, objective
from mimicmotion_jax.training.state import Params, Template, TrainState
from mimicmotion_jax.training.update import Metrics, make_update

Step = Callable[[TrainState, Params, Encoded], tuple[TrainState, Metrics]]


def make_train_step(config: TrainConfig, template: Template, mesh: Mesh) -> Step:
    """The jitted step (state, frozen parameters, batch) -> (state, metrics); the state's memory is reused.

    Metrics: those of `make_update`, `loss_hands` and `loss_elsewhere` (unweighted mean errors).
    """
    loss_and_grads = jax.value_and_grad(functools.partial(_loss, config, template, mesh), has_aux=True)
    update = make_update(config.optimizer, config.steps)

    def step(state: TrainState, frozen: Params, batch: Encoded) -> tuple[TrainState, Metrics]:
        loss, sums, grads = _accumulate(loss_and_grads, config.accumulation, state.params, frozen, batch, mesh)
        grads = jax.lax.with_sharding_constraint(grads, sharding.shard_parameters(mesh, grads))
        state, metrics = update(state, loss, grads)
        means = {
            "loss_hands": sums["hand_error"] / jnp.maximum(sums["hand_count"], 1),
            "loss_elsewhere": sums["other_error"] / jnp.maximum(sums["other_count"], 1),
        }
        return state, metrics | means

    return jax.jit(step, donate_argnums=0)


def _loss(
    config: TrainConfig, template: Template, mesh: Mesh, params: Params, frozen: Params, batch: Encoded
) -> tuple[Float[Array, ""], Metrics]:
    dtype = jnp.dtype(config.dtype)
    # Cast where the parameters lie, so that what travels between devices is in the short format.
    cast = {key: value.astype(dtype) for key, value in (params | frozen).items()}
    cast = jax.lax.with_sharding_constraint(cast, sharding.shard_parameters(mesh, cast))
    draws = draw(config.objective, config.seed, batch.index, batch.latents.shape[1:])
    draws = draws._replace(noise=jax.lax.with_sharding_constraint(draws.noise, sharding.shard_frames(mesh)))
    execution = sharding.training_execution(mesh, config.remat)
    networks = template.networks(sharding.gather_parameters(mesh, cast))
    return objective(networks, batch, draws, config.objective, execution)


def _accumulate(
    loss_and_grads: Callable, parts: int, params: Params, frozen: Params, batch: Encoded, mesh: Mesh
) -> tuple[Float[Array, ""], Metrics, Params]:
    """Mean loss, summed metrics and mean gradient over `parts` equal parts of the batch, one after the other."""
    if parts == 1:
        (loss, sums), grads = loss_and_grads(params, frozen, batch)
        return loss, sums, grads

    # Every device keeps its own samples: part p takes the p-th of every `parts` neighbours.
    cut = jax.tree.map(lambda x: rearrange(x, "(b p) ... -> p b ...", p=parts), batch)

    def add(total: tuple, part: Encoded) -> tuple[tuple, None]:
        (loss, sums), grads = loss_and_grads(params, frozen, part)
        return jax.tree.map(jnp.add, total, (loss, sums, grads)), None

    (loss, sums), grads = jax.eval_shape(loss_and_grads, params, frozen, jax.tree.map(lambda x: x[0], cut))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, sums, grads))
    zeros = jax.lax.with_sharding_constraint(zeros, sharding.shard_parameters(mesh, zeros))
    (loss, sums, grads), _ = jax.lax.scan(add, zeros, cut)
    return loss / parts, sums, jax.tree.map(lambda g: g / parts, grads)
