"""Execution settings of a network that do not change its results: sharding of activations and rematerialisation."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Layer = Callable[[Any, Any, jax.Array], jax.Array]
"""Function of what all samples share, of what each has alone [B, ...], and of activations [B, F, P, C]."""


class PerDevice(Protocol):
    """Wrapper of `Execution.per_device`."""

    def __call__(self, function: Attend, shared: int = 0) -> Attend:
        """Wrap a function of three arrays, the last `shared` of which every device has."""
        ...


def _identity(x: Any) -> Any:
    return x


def _on_this_device(function: Attend, shared: int = 0) -> Attend:
    return function


def _on_one_device(layer: Layer, axis: int) -> Layer:
    return layer


@dataclasses.dataclass(frozen=True)
class Execution:
    """Activation sharding, kernels and rematerialisation; the default is one device without rematerialisation.

    A video that is split over devices is sharded by frame [B, F / D, ...] in layers that work within a frame, and by
    position [B, F, P / D, C] in layers along the frames, with an all-to-all between. Both the input and the output of
    layers along the frames are constrained by position: where the output was not, XLA's partitioner (jax 0.10) summed
    the gradient of a temporal convolution over only some of the devices.

    Attributes:
        by_frame: shards an array [B, F, ...] by frames.
        by_position: shards an array [B, F, P, C] by positions.
        by_sequence: shards an array [N, tokens, ...] by sequences, the frames or positions of all samples. Without this
            constraint the partitioner splits tokens and gathers keys and values.
        per_device: wraps a function of three arrays [N, ...], sharded by sequence, so that each device runs it on its
            own shard; the last `shared` of them are parameters that every device has. The partitioner cannot split
            custom kernels.
        per_shard: wraps a `Layer` of activations that are sharded by frames (axis 1) or by positions (axis 2), so that
            each device runs it on its own shard.
        platform: "tpu", "cuda" or "cpu" select kernels; "any" selects code that every device runs.
        cudnn_attention: True if the devices run cuDNN's attention (`models.cudnn`).
        fused_geglu: True if the devices run GEGLU in one kernel (`models.fused_geglu`), which has no gradient.
        num_devices: number of devices that a batch of frames is sharded over; attention divides its memory bound by it.
        remat: recompute the inside of each residual block and each transformer in the backward pass.
        part_size: number of elements that an activation may have on a device before a layer is computed in parts
            (`models.parts`); None computes everything at once.
        inside_part: True inside such a part.
    """

    by_frame: Callable[[jax.Array], jax.Array] = _identity
    by_position: Callable[[jax.Array], jax.Array] = _identity
    by_sequence: Callable[[jax.Array], jax.Array] = _identity
    per_device: PerDevice = _on_this_device
    per_shard: Callable[[Layer, int], Layer] = _on_one_device
    platform: str = "any"
    cudnn_attention: bool = False
    fused_geglu: bool = False
    num_devices: int = 1
    remat: bool = False
    part_size: int | None = None
    inside_part: bool = False

    def checkpoint(self, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """Rematerialise `function` if `remat`: only its arguments are kept for the backward pass.

        All its gradients become available at once. Otherwise XLA postpones the gradients of parameters that are summed
        over devices and keeps their inputs for every block, which takes three times the memory (docs/training_pod.md).
        """
        if not self.remat:
            return function
        recomputed = jax.checkpoint(function)
        held = jax.custom_vjp(recomputed)
        held.defvjp(
            lambda *args: jax.vjp(recomputed, *args),
            lambda backward, gradient: jax.lax.optimization_barrier(backward(gradient)),
        )
        return held

    def run(self, block: Callable[..., jax.Array], *args: Any) -> jax.Array:
        """Call `block(*args, self)` under `checkpoint`; the parameters of the block count as arguments."""
        return self.checkpoint(lambda block, *args: block(*args, self))(block, *args)


DEFAULT = Execution()
"""Execution on one device."""
