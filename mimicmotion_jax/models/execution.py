"""How the layers of a network run, without changing results: where arrays lie, what the backward pass recomputes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _leave(x: Any) -> Any:
    return x


@dataclasses.dataclass(frozen=True)
class Execution:
    """Handed down through a network by whoever knows the devices; the default is one device and no recomputation.

    A video that is split over devices lies by frames [B, F / D, ...] where layers work within a frame, and by positions
    [B, F, P / D, C] where they work along the frames, with an all-to-all between. What works along the frames has its
    input and its output laid out by position: left to choose the output's layout, XLA's partitioner (jax 0.10) summed
    the gradient of a temporal convolution over only some of the devices.

    Attributes:
        by_frame: lays an array [B, F, ...] out by its frames.
        by_position: lays an array [B, F, P, C] out by its positions.
        by_sequence: lays an array [N, tokens, ...] out by its sequences: frames or positions of all samples. Without
            it the partitioner splits tokens and gathers keys and values.
        per_device: makes of a function of arrays [N, ...], laid out by sequence, one that each device runs on its own
            part, as the partitioner cannot cut a custom kernel up.
        platform: "tpu", "cuda" or "cpu" choose how layers are computed; with any other word every device runs them.
        cudnn_attention: the devices run cuDNN's attention (`models.cudnn`).
        num_devices: over how many devices a batch of frames is spread; attention divides its memory bound by it.
        remat: recompute the inside of each residual block and each transformer in the backward pass.
    """

    by_frame: Callable[[jax.Array], jax.Array] = _leave
    by_position: Callable[[jax.Array], jax.Array] = _leave
    by_sequence: Callable[[jax.Array], jax.Array] = _leave
    per_device: Callable[[Attend], Attend] = _leave
    platform: str = "any"
    cudnn_attention: bool = False
    num_devices: int = 1
    remat: bool = False

    def checkpoint(self, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """`function`, of which only the arguments are kept for the backward pass if `remat`.

        It hands all its gradients on at once. Left free, XLA puts those of parameters off where they are summed over
        devices, and keeps what it computes them from, of every block: three times the memory (docs/training.md).
        """
        if not self.remat:
            return function
        recomputed = jax.checkpoint(function)
        held = jax.custom_vjp(recomputed)
        held.defvjp(
            lambda *args: jax.vjp(recomputed, *args),
            lambda pull_back, gradient: jax.lax.optimization_barrier(pull_back(gradient)),
        )
        return held

    def run(self, block: Callable[..., jax.Array], *args: Any) -> jax.Array:
        """`block(*args, self)` under `checkpoint`; the block, a module, is an argument like the others."""
        return self.checkpoint(lambda block, *args: block(*args, self))(block, *args)


DEFAULT = Execution()
