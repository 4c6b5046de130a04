"""Training state and how a gradient changes it: float32 parameters, AdamW, a moving average; all sharded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mimicmotion_jax import sharding
from mimicmotion_jax.training.config import OptimizerConfig

Params = dict[str, jax.Array]
"""Parameters by dotted path, the network's name first: "unet.conv_in.kernel"."""

Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """Everything that a step changes; a checkpoint holds it together with the position in the data."""

    step: Int[Array, ""]
    params: Params  # the trained ones
    opt_state: optax.OptState
    ema: Params  # empty where no average is kept

    @property
    def averaged_params(self) -> Params:
        """Moving averages of the trained parameters, or the parameters where no average is kept."""
        return self.ema or self.params


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then constant or a cosine decay to zero at the last of `steps`.

    The step numbered n, from 0, has the rate peak * min(1, (n + 1) / warmup_steps) before any decay, so that the first
    step learns something and the last one of a cosine decay nothing.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.decay == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1))
    else:
        schedule = optax.linear_schedule(0.0, peak, max(warmup, 1))
    return lambda count: schedule(count + 1)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip the global gradient norm, then AdamW."""
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def abstract_state(
    shapes: Mapping[str, tuple[int, ...]], config: OptimizerConfig, steps: int, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of the state, given the shapes of the trained parameters."""
    params = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()}
    state = jax.eval_shape(lambda params: _initial_state(params, config, steps), params)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.shard_parameter(mesh, x.shape)), state
    )


def init_state(params: Params, config: OptimizerConfig, steps: int, mesh: Mesh) -> TrainState:
    """Make the state of step 0, sharded over the mesh, from the parameters to train."""
    abstract = abstract_state({key: x.shape for key, x in params.items()}, config, steps, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(lambda params: _initial_state(params, config, steps), out_shardings=shardings)(params)


def _initial_state(params: Params, config: OptimizerConfig, steps: int) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(config, steps).init(params),
        ema=dict(params) if config.ema_decay else {},
    )


def apply_gradients(
    state: TrainState, loss: Float[Array, ""], grads: Params, config: OptimizerConfig, steps: int
) -> tuple[TrainState, Metrics]:
    """Make the next state; if the loss or the gradient is not finite, return the state unchanged.

    `optax.apply_if_finite` would not do: it looks at gradients alone, goes on after a number of bad steps, and does not
    hold back the step counter and the moving average.

    Args:
        state: before the step.
        loss: mean over the batch.
        grads: gradient of every trained parameter.
        config: AdamW, its warm-up and the average.
        steps: of the whole run, for the schedule.

    Returns:
        The state, and the metrics `loss`, `grad_norm` (before clipping), `learning_rate` and `finite` (0 or 1).
    """
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = make_optimizer(config, steps).update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    new = TrainState(state.step + 1, params, opt_state, _average(config, state, params))
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    metrics = {
        "loss": loss,
        "grad_norm": grad_norm,
        "learning_rate": learning_rate(config, steps)(state.step),
        "finite": finite.astype(jnp.float32),
    }
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state), metrics


def _average(config: OptimizerConfig, state: TrainState, params: Params) -> Params:
    """Update the moving average, whose decay is min(ema_decay, (1 + n) / (10 + n)) after n steps."""
    if config.ema_decay is None:
        return {}
    steps = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema_decay, (1 + steps) / (10 + steps))
    average: Any = optax.incremental_update(state.ema, params, decay)  # decay * average + (1 - decay) * params
    return average
