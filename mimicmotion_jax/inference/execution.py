"""Two ways to go through the stages of generation: run them on devices, or lower them for a compiler.

The engine does everything through one of these, so that what is compiled for devices that are not at hand is what runs.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding


class Executor(Protocol):
    """Places arrays and calls jitted stages."""

    def put(self, tree: Any, sharding: Sharding) -> Any:
        """Lay a tree of arrays out."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding) -> jax.Array:
        """Zeros that never lie in the host's memory."""
        ...

    def load(self, network: nnx.Module, sharding: Sharding) -> None:
        """Have a network's parameters on the devices."""
        ...

    def unload(self, network: nnx.Module) -> None:
        """Have a network's parameters in the host's memory alone."""
        ...

    def run(self, stage: Callable[..., Any], *args: Any, **static: Any) -> Any:
        """Call a jitted function; `static` are its static arguments."""
        ...


class Run:
    """Run every stage on the devices."""

    def put(self, tree: Any, sharding: Sharding) -> Any:
        """Copy arrays to the devices."""
        return jax.device_put(tree, sharding)

    def zeros(self, shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding) -> jax.Array:
        """Zeros on the devices."""
        return jnp.zeros(shape, dtype, device=sharding)

    def load(self, network: nnx.Module, sharding: Sharding) -> None:
        """Copy parameters that `unload` has moved."""
        if any(isinstance(x, np.ndarray) for x in jax.tree.leaves(network)):
            nnx.update(network, jax.device_put(nnx.state(network), sharding))

    def unload(self, network: nnx.Module) -> None:
        """Replace the parameters by NumPy arrays; their memory on the devices is free then."""
        if any(isinstance(x, jax.Array) for x in jax.tree.leaves(network)):
            nnx.update(network, jax.device_get(nnx.state(network)))

    def run(self, stage: Callable[..., Any], *args: Any, **static: Any) -> Any:
        """Call the stage."""
        return stage(*args, **static)


class Lower:
    """Put shapes in the place of arrays, and remember how to lower each stage instead of running it.

    Attributes:
        programs: for each stage by name, a function that lowers it as it was first called.
    """

    def __init__(self) -> None:
        self.programs: dict[str, Callable[[], jax.stages.Lowered]] = {}

    def put(self, tree: Any, sharding: Sharding) -> Any:
        """Shapes with that layout."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), _dtype(x), sharding=sharding), tree)

    def zeros(self, shape: tuple[int, ...], dtype: jnp.dtype, sharding: Sharding) -> Any:
        """A shape with that layout."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def load(self, network: nnx.Module, sharding: Sharding) -> None:
        """Do nothing: shapes take no memory."""

    def unload(self, network: nnx.Module) -> None:
        """Do nothing."""

    def run(self, stage: Any, *args: Any, **static: Any) -> Any:
        """Shapes of the stage's results."""
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]

        def lower() -> jax.stages.Lowered:
            with jax.default_matmul_precision(precision):
                return stage.lower(*args, **static)

        self.programs.setdefault(stage.__name__, lower)
        return jax.eval_shape(functools.partial(stage, **static), *args)


def _dtype(x: Any) -> jnp.dtype:
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
