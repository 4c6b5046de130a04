"""A layer applied to parts of a video, one after the other, so small that a TPU keeps their activations in fast memory.

The products inside a transformer write results several times as wide as its input. Those of a whole video go through
the chip's main memory; those of a part stay next to the matrix units until the next product reads them.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from mimicmotion_jax.models.execution import Execution


def in_parts(
    layer: Callable[..., Float[Array, "b f p c"]],
    shared: Any,
    per_sample: Any,
    x: Float[Array, "b f p c"],
    execution: Execution,
    *,
    axis: int,
    width: int,
) -> Float[Array, "b f p c"]:
    """Compute layer(shared, per_sample, x, execution), in parts of frames or of positions if `execution` asks for it.

    Args:
        layer: function that treats all frames (`axis=1`) or all positions (`axis=2`) alike, and keeps the shape of x.
        shared: pytree of what belongs to all samples, such as modules.
        per_sample: pytree of arrays [B, ...].
        x: activations, sharded along `axis` if at all.
        execution: devices to compute on.
        axis: that of the parts.
        width: channels of the widest activation inside the layer.
    """
    if execution.part_size is None or math.prod(x.shape[:-1]) * width <= execution.part_size * execution.num_devices:
        return layer(shared, per_sample, x, execution)
    in_part = Execution(platform=execution.platform, inside_part=True)
    part_size = execution.part_size

    def run(shared: Any, per_sample: Any, x: Float[Array, "b f p c"]) -> Float[Array, "b f p c"]:
        # A part has frames of all samples, or positions of one: merging those of several would take a transposition.
        samples = x.shape[0] if axis == 1 else 1
        total, elements = x.shape[axis], samples * math.prod(x.shape[1:-1]) * width
        fitting = min(total, max(1, part_size * total // elements))
        size = next(size for size in range(fitting, 0, -1) if total % size == 0)
        parts = total // size

        def replace_part(number: Int[Array, ""], x: Float[Array, "b f p c"]) -> Float[Array, "b f p c"]:
            first = number // parts * samples
            start, sizes = [first, 0, 0, 0], [samples, *x.shape[1:]]
            start[axis], sizes[axis] = number % parts * size, size
            own = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, first, samples), per_sample)
            part = layer(shared, own, jax.lax.dynamic_slice(x, start, sizes), in_part)
            return jax.lax.dynamic_update_slice(x, part, start)

        return jax.lax.fori_loop(0, x.shape[0] // samples * parts, replace_part, x)

    return execution.per_shard(run, axis)(shared, per_sample, x)
