"""The objective of distillation: a student that needs a few steps and no guidance (see `diffusion.consistency`)."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.diffusion.consistency import consistency_error, pseudo_huber
from mimicmotion_jax.diffusion.edm import denoised, euler_step, guide
from mimicmotion_jax.diffusion.schedules import ScheduleName, make_sigmas
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.training.objective import (
    Draws,
    Encoded,
    Networks,
    ObjectiveConfig,
    draw,
    per_sample,
    predictor,
    sample_keys,
    weighted_loss,
)


@config_dataclass
class DistillationConfig:
    """Consistency distillation; the student starts from `checkpoint`, and its target is its moving average."""

    teacher: str | None = None
    """Checkpoint of the teacher, local or gs://; null: the one that the student starts from."""
    guidance_scale: Annotated[float, Field(ge=1, le=100)] = 2.0
    """Guidance scale of the teacher, which the student learns and then does without; 1 is no guidance."""
    schedule: ScheduleName = "ays"
    """Noise levels between which the teacher steps, as in sampling."""
    num_levels: Annotated[int, Field(ge=2, le=1000)] = 40
    """Number of these steps; multiples of the student's own steps include its noise levels."""
    huber: Annotated[float, Field(gt=0)] | None = 0.03
    """Distance from which on the loss grows linearly (pseudo-Huber); null: squared errors."""


class Teaching(NamedTuple):
    """Networks beside the student's."""

    teacher: Networks
    target: Networks  # the student's moving average


def draw_levels(
    distillation: DistillationConfig, config: ObjectiveConfig, seed: int, index: UInt32[Array, " b"], shape: tuple
) -> tuple[Draws, Float[Array, " b"]]:
    """Draw everything random about the samples `index`: as in training, but sigma is a level of the teacher's.

    Returns:
        The draws, and the level after each sigma, which is 0 for the last.
    """
    levels = jnp.asarray(make_sigmas(distillation.schedule, distillation.num_levels))
    keys = sample_keys(seed, index)["sigma"]
    number = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(levels) - 1))(keys)
    return draw(config, seed, index, shape)._replace(sigma=levels[number]), levels[number + 1]


def distillation_objective(
    student: Networks,
    teaching: Teaching,
    batch: Encoded,
    draws: Draws,
    lower: Float[Array, " b"],
    config: ObjectiveConfig,
    distillation: DistillationConfig,
    execution: Execution = DEFAULT,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the loss and the sums of `objective`; `draws` and `lower` are from `draw_levels`."""
    sigma, following = per_sample(draws.sigma), per_sample(lower)
    noisy = batch.latents + sigma * draws.noise

    def teach(conditional: Array) -> Array:
        """Predict v by the teacher's conditional or unconditional branch."""
        names = ("keep_context", "keep_image", "keep_pose")
        kept = draws._replace(**{name: getattr(draws, name) & conditional for name in names})
        return predictor(batch, kept, config, execution)(teaching.teacher, noisy, draws.sigma)

    if distillation.guidance_scale > 1:  # one branch after the other: half the memory, and compiled once
        branches = jax.lax.map(teach, jnp.array([False, True]))
        velocities = guide(branches[0], branches[1], distillation.guidance_scale)
    else:
        velocities = teach(jnp.array(True))
    reached = euler_step(noisy, velocities, sigma, following)

    predict = predictor(batch, draws, config, execution)
    # The network knows no level of 0; there f(x, 0) = x, whatever it predicts.
    at_lower = predict(teaching.target, reached, jnp.where(lower > 0, lower, draws.sigma))
    target = jnp.where(following > 0, denoised(reached, at_lower, following), reached)
    answer = denoised(noisy, predict(student, noisy, draws.sigma), sigma)
    error = consistency_error(answer, target, sigma)
    loss = error if distillation.huber is None else pseudo_huber(error, distillation.huber)
    return weighted_loss(loss, error, batch.hand_mask, config.hand_weight)
