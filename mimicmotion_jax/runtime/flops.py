"""FLOPs of a function, from its jaxpr: matrix products and convolutions, 2 per multiply-add."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def count_flops(fn: Callable[..., Any], *args: Any, skip_padding: bool = False) -> float:
    """Count the FLOPs of `fn(*args)` as `jaxpr_flops` does, without computing anything.

    `args` may be `jax.ShapeDtypeStruct`s. `fn` may be jitted, differentiated or rematerialised: gradients and
    recomputation count as well.
    """
    return jaxpr_flops(jax.make_jaxpr(fn)(*args), skip_padding=skip_padding)


def jaxpr_flops(jaxpr: ClosedJaxpr | Jaxpr, *, skip_padding: bool = False) -> float:
    """Count the FLOPs of the matrix products and convolutions of a jaxpr (`jax.jit(f).trace(...).jaxpr`).

    A scan counts its body `length` times, a conditional its most expensive branch, a `shard_map` its body once per
    device, a Pallas kernel its body once per point of its grid. A while loop, whose trip count is unknown, counts its
    body once.

    Args:
        jaxpr: the program, over all devices.
        skip_padding: False counts products with a convolution's padding, as torch's `FlopCounterMode` does, so that a
            gradient costs as much as its forward convolution; True leaves them out, as `xla_report` does. The holes of
            an input dilation, as in gradients of strided convolutions, are left out in either case.
    """
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum((_equation_flops(equation, skip_padding) for equation in inner.eqns), 0.0)


@functools.lru_cache(maxsize=4096)
def valid_products(
    inputs: int, outputs: int, kernel: int, stride: int, pad: int, input_dilation: int = 1, kernel_dilation: int = 1
) -> int:
    """Number of (output, kernel) positions of a convolution along one dimension that meet an element of the input.

    The others meet padding or a hole of the input dilation. `pad` is the padding in front; negative padding crops.
    """
    starts = np.arange(outputs) * stride - pad
    offsets = np.arange(kernel) * kernel_dilation
    long, short = (starts, offsets) if outputs > kernel else (offsets, starts)
    last = (inputs - 1) * input_dilation
    total = 0
    for shift in short:
        position = long + shift
        total += int(np.count_nonzero((position >= 0) & (position <= last) & (position % input_dilation == 0)))
    return total


def _equation_flops(equation: JaxprEqn, skip_padding: bool) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot_flops(equation)
    if name == "conv_general_dilated":
        return _convolution_flops(equation, skip_padding)
    parts = [jaxpr_flops(jaxpr, skip_padding=skip_padding) for jaxpr in _jaxprs(params)]
    if not parts:
        return 0.0
    if name == "cond":
        return max(parts)
    times = 1
    if name == "scan":
        times = params["length"]
    elif name == "shard_map":
        axes = params.get("newly_manual_axes") or params["manual_axes"]  # jax < 0.10 has the second
        times = math.prod(params["mesh"].shape[axis] for axis in axes)
    elif name == "pallas_call":
        times = math.prod(params["grid_mapping"].grid)
    return times * sum(parts)


def _jaxprs(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _dot_flops(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    lhs = _shape(equation.invars[0])
    return 2.0 * math.prod(_shape(equation.outvars[0])) * math.prod(lhs[i] for i in contracted)


def _convolution_flops(equation: JaxprEqn, skip_padding: bool) -> float:
    params = equation.params
    lhs, rhs = map(_shape, equation.invars)
    out = _shape(equation.outvars[0])
    numbers = params["dimension_numbers"]
    # The kernel has the input features of one group only; with batch groups likewise.
    flops = 2.0 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * rhs[numbers.rhs_spec[1]]
    for dimension, (lhs_axis, rhs_axis, out_axis) in enumerate(
        zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    ):
        dilation = params["lhs_dilation"][dimension]
        if skip_padding:
            flops *= valid_products(
                lhs[lhs_axis],
                out[out_axis],
                rhs[rhs_axis],
                params["window_strides"][dimension],
                params["padding"][dimension][0],
                dilation,
                params["rhs_dilation"][dimension],
            )
        else:
            flops *= out[out_axis] * rhs[rhs_axis] / dilation
    return flops
