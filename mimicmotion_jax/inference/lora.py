"""LoRAs on a pipeline's networks: several with their strengths, merged into the weights or kept apart."""

from collections import defaultdict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from mimicmotion_jax.convert.lora import Lora
from mimicmotion_jax.models.lora import LowRank, attach_adapters, combine, linear_layers, merge_adapters
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.runtime.errors import InputError


def apply_loras(
    unet: UNet, pose_net: PoseNet, loras: Sequence[tuple[Lora, float]], place: Sharding, *, merge: bool = True
) -> None:
    """Add LoRAs, each times its strength, to networks in place.

    Kernels are rounded to their format once, after all products are added. PoseNet's parameters move from where they
    are towards a LoRA's own by the strength, in either case.

    Args:
        unet: its kernels change, or its linear layers get adapters.
        pose_net: changes if a LoRA brings one.
        loras: with strengths.
        place: of the networks.
        merge: add to the kernels; False keeps apart.

    Raises:
        InputError: adapters of convolutions that are to be kept apart.
    """
    parts = defaultdict(list)
    for lora, strength in loras:
        for layer, factors in lora.factors.items():
            parts[layer].append((factors, strength))
    if not merge and (others := parts.keys() - linear_layers(unet).keys()):
        raise InputError(
            f"{min(others)} is a convolution, whose adapter cannot be kept apart: merge the LoRA (merge=True)."
        )
    dtype = jnp.float32 if merge else unet.conv_in.kernel.dtype
    factors = {layer: LowRank(*(x.astype(dtype) for x in combine(weighted))) for layer, weighted in parts.items()}
    factors = jax.device_put(factors, place)
    merge_adapters(unet, factors) if merge else attach_adapters(unet, factors)
    _interpolate(pose_net, [(lora.pose_net, strength) for lora, strength in loras if lora.pose_net], place)


def _interpolate(network: nnx.Module, targets: Sequence[tuple[dict[str, np.ndarray], float]], place: Sharding) -> None:
    """Set parameters to (1 - sum of strengths) theirs + sum of strength times target, in float32."""
    if not targets:
        return
    kept = 1 - sum(strength for _, strength in targets)
    state = nnx.state(network)
    for path, param in nnx.to_flat_state(state):
        key, own = ".".join(map(str, path)), np.asarray(param[...])
        mixed = sum((strength * params[key] for params, strength in targets), start=kept * own.astype(np.float32))
        param.set_value(jax.device_put(mixed.astype(own.dtype), place))
    nnx.update(network, state)
