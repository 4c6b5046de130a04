"""FLOPs of the custom kernels that the networks use, which no compiler counts."""

import math
from collections.abc import Callable, Sequence

KernelFlops = Callable[[Sequence[tuple[int, ...]]], float]
"""FLOPs of one run of a kernel, from the shapes of its operands."""


def _products(num_products: int, token_axis: int) -> KernelFlops:
    """FLOPs of `num_products` matrix products between queries and keys; `token_axis` is the keys' axis of tokens."""
    return lambda shapes: 2.0 * num_products * math.prod(shapes[0]) * shapes[1][token_axis]


KERNEL_FLOPS: dict[str, KernelFlops] = {
    # jax's Pallas flash attention for TPUs; the backward kernels compute the scores again.
    "flash_attention": _products(2, token_axis=2),
    "flash_mha_bwd_dq": _products(3, token_axis=2),
    "flash_mha_bwd_dkv": _products(4, token_axis=2),
    # cuDNN's
    "__cudnn$fmhaSoftmaxBackward": _products(5, token_axis=1),
    "__cudnn$fmhaScaleBiasSoftmaxBackward": _products(5, token_axis=1),
    "__cudnn$fmhaSoftmax": _products(2, token_axis=1),
    "__cudnn$fmhaScaleBiasSoftmax": _products(2, token_axis=1),
    # GEGLU (`models.hopper_geglu`): a product of [m, k] with [k, 2 n].
    "mosaic_gpu": lambda shapes: 2.0 * math.prod(shapes[0]) * shapes[1][-1],
}
"""FLOPs of known kernels by the start of their names; the first match holds."""
