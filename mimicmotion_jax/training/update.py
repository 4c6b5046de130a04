"""From gradients to the next state: clipping, AdamW, moving averages; a gradient that is no number changes nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mimicmotion_jax.training.config import OptimizerConfig
from mimicmotion_jax.training.state import Params, TrainState, learning_rate, make_optimizer

Metrics = dict[str, Float[Array, ""]]
Update = Callable[[TrainState, Float[Array, ""], Params], tuple[TrainState, Metrics]]


def make_update(config: OptimizerConfig, steps: int) -> Update:
    """A function (state, loss, gradients) -> (state, metrics), to be used inside jit.

    Metrics: `loss`, `grad_norm` (before clipping), `learning_rate` and `finite`. Where loss or gradient is not finite
    the state comes back as it was.

    Args:
        config: of AdamW, its warm-up and the averages.
        steps: of the whole run.
    """
    optimizer, schedule = make_optimizer(config, steps), learning_rate(config, steps)

    def update(state: TrainState, loss: Float[Array, ""], grads: Params) -> tuple[TrainState, Metrics]:
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, opt_state, _average(config, state, params))
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": schedule(state.step),
            "finite": finite.astype(jnp.float32),
        }
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state), metrics

    return update


def _average(config: OptimizerConfig, state: TrainState, params: Params) -> Params:
    """Exponential moving average with the warm-up min(decay, (1 + n) / (10 + n)) after n steps."""
    if not state.ema:
        return {}
    steps = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema_decay, (1 + steps) / (10 + steps))
    return {key: decay * old + (1 - decay) * params[key] for key, old in state.ema.items()}
