"""What training keeps: float32 master parameters, optimizer moments and moving averages, born sharded."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int

from mimicmotion_jax import checkpoint, sharding
from mimicmotion_jax.models.build import abstract_network, init_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import OptimizerConfig, TrainConfig
from mimicmotion_jax.training.objective import Networks

Params = dict[str, jax.Array]  # by dotted path, "unet.conv_in.kernel"

TRAINED = ("unet", "pose_net")
# A context of one token leaves these without any effect, and so without gradient (see models/transformer.py).
_WITHOUT_GRADIENT = re.compile(r"transformer_blocks\.\d+\.(norm2|attn2\.to_q|attn2\.to_k)\.")


class TrainState(NamedTuple):
    """The part of a run that changes; what a checkpoint holds beside the position in the data."""

    step: Int[Array, ""]
    params: Params  # those that are trained
    opt_state: optax.OptState
    ema: Params  # empty where it is off


class Template:
    """The trained networks without their parameters: names and shapes, and how parameters become networks."""

    def __init__(self, config: ModelConfig):
        self._graphs, self._variables = {}, {}
        for name in TRAINED:
            self._graphs[name], state = nnx.split(abstract_network(name, config))
            for path, variable in nnx.to_flat_state(state):
                self._variables[".".join((name, *map(str, path)))] = (name, path, variable)
        self.shapes = {key: tuple(variable.get_value().shape) for key, (*_, variable) in self._variables.items()}

    def networks(self, params: Mapping[str, jax.Array]) -> Networks:
        """The networks with these parameters, all of them."""
        leaves = {name: [] for name in TRAINED}
        for key, (name, path, variable) in self._variables.items():
            leaves[name].append((path, variable.replace(params[key])))
        return Networks(**{name: nnx.merge(self._graphs[name], nnx.from_flat_state(leaves[name])) for name in TRAINED})


def split_trainable(keys: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the parameters that are trained, and of the rest; patterns are searched for in the names.

    Raises:
        InputError: a pattern that is no regular expression or that no parameter matches.
    """
    trained = set()
    for pattern in patterns:
        try:
            matching = {key for key in keys if re.search(pattern, key) and not _WITHOUT_GRADIENT.search(key)}
        except re.error as error:
            raise InputError(f"trainable: '{pattern}' is no regular expression ({error}).") from None
        if not matching:
            raise InputError(f"trainable: no parameter matches '{pattern}'; names look like {keys[0]}.")
        trained |= matching
    return [key for key in keys if key in trained], [key for key in keys if key not in trained]


def initial_params(config: TrainConfig, model: ModelConfig, mesh: Mesh, progress: bool = True) -> Params:
    """All parameters of UNet and PoseNet, float32, from the checkpoint or drawn from the seed, on the mesh."""
    params: Params = {}
    for name in TRAINED:
        state = nnx.state(abstract_network(name, model))
        place = {key: sharding.shard_parameter(mesh, x.shape) for key, x in checkpoint.flat_params(state).items()}
        if config.checkpoint is None:
            state = nnx.state(init_network(name, model, config.seed, place=place.__getitem__))
        else:
            state = checkpoint.load_params(
                config.checkpoint, name, state, "float32", place.__getitem__, progress and jax.process_index() == 0
            )
        params |= {f"{name}.{key}": value for key, value in checkpoint.flat_params(state).items()}
    return params


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step n, from 0, has lr min(1, (n + 1) / warm-up), then cosine decay to zero at `steps` where asked for."""
    peak, warmup = config.learning_rate, config.warmup_steps

    def schedule(count: Int[Array, ""]) -> Array:
        rising = jnp.minimum(1.0, (count + 1) / max(warmup, 1))
        if config.decay == "none":
            return peak * rising
        done = jnp.clip((count + 1 - warmup) / max(steps - warmup, 1), 0, 1)
        return peak * rising * 0.5 * (1 + jnp.cos(jnp.pi * done))

    return schedule


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip the whole gradient, then AdamW."""
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
    """Shapes, dtypes and shardings of the state of a run that trains parameters of these shapes."""
    params = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()}
    state = jax.eval_shape(lambda params: new_state(params, config, steps), params)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.shard_parameter(mesh, x.shape)), state
    )


def new_state(params: Params, config: OptimizerConfig, steps: int) -> TrainState:
    """The state at step 0; to be jitted with the shardings of `abstract_state`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(config, steps).init(params),
        ema=dict(params) if config.ema_decay else {},
    )
