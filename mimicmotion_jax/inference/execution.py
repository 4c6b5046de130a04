"""Two ways to go through the stages of generation: run them on devices, or lower them for a compiler.

The engine does everything through one of these, so that what is compiled for devices that are not at hand is what runs.
"""

import dataclasses
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


@dataclasses.dataclass
class Program:
    """Stage as it is called with some shapes and static arguments; called itself, it is lowered."""

    lower: Callable[[], jax.stages.Lowered]
    calls: int = 0
    """Number of calls with these."""

    def __call__(self) -> jax.stages.Lowered:
        """Lower the stage."""
        return self.lower()


class Lower:
    """Put shapes in the place of arrays, and remember how to lower each stage instead of running it.

    Attributes:
        programs: by the name of the stage; further ones of the same stage have a number behind it ("…_2").
    """

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        self._names: dict[Any, str] = {}

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

        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((np.shape(x), str(_dtype(x))) for x in leaves)
        key = stage.__name__, structure, shapes, tuple(sorted(static.items()))
        if key not in self._names:
            earlier = sum(name == stage.__name__ for name, *_ in self._names)
            self._names[key] = f"{stage.__name__}_{earlier + 1}" if earlier else stage.__name__
        self.programs.setdefault(self._names[key], Program(lower)).calls += 1
        return jax.eval_shape(functools.partial(stage, **static), *args)


def _dtype(x: Any) -> jnp.dtype:
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
