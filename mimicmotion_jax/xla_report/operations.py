"""Cost and kind of work of single instructions of optimised HLO."""

import math
import re
from collections.abc import Mapping

from mimicmotion_jax.runtime.flops import valid_products
from mimicmotion_jax.xla_report.hlo import (
    COLLECTIVES,
    Computation,
    Instruction,
    arrays,
    attribute,
    called_computations,
    custom_call_target,
    nbytes,
    shape_of,
)

_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_DIM_LABELS = re.compile(r"dim_labels=(\w+_\w+->\w+)")
CONTAINERS = frozenset(("while", "conditional", "call"))
"""Opcodes whose called computations hold operations of their own."""
_MOVES = frozenset(
    (
        "bitcast",
        "broadcast",
        "concatenate",
        "constant",
        "copy",
        "dynamic-slice",
        "dynamic-update-slice",
        "pad",
        "parameter",
        "reshape",
        "slice",
        "transpose",
    )
)
_SLICES = frozenset(("dynamic-slice", "slice", "gather"))
_FREE = frozenset(("after-all", "bitcast", "constant", "get-tuple-element", "parameter", "tuple")) | CONTAINERS
# Kernels of NVIDIA's libraries and of XLA's Triton backend, by what their names contain.
_LIBRARIES = (("conv", "convolution"), ("gemm", "matrix product"), ("matmul", "matrix product"), ("fmha", "attention"))


def kind_of_work(instruction: Instruction, computations: Mapping[str, Computation]) -> str:
    """Return "convolution", "matrix product", "reduction", "copy" or "elementwise"; the opcode for anything else."""
    opcode = instruction.opcode
    if opcode == "custom-call":
        target = custom_call_target(instruction)
        return next((kind for part, kind in _LIBRARIES if part in target), target)
    opcodes = {opcode}
    if opcode == "fusion":
        opcodes = {inner for name in called_computations(instruction) for inner in computations[name].opcodes.values()}
    for heaviest, kind in (("convolution", "convolution"), ("dot", "matrix product"), ("reduce", "reduction")):
        if heaviest in opcodes:
            return kind
    if opcodes <= _MOVES:
        return "copy"
    return "elementwise" if opcode == "fusion" else opcode


def moved_bytes(instruction: Instruction, types: Mapping[str, str], computations: Mapping[str, Computation]) -> int:
    """Bytes that an operation reads and writes: each operand once, but only the slices where a fusion slices one.

    The program must have been read with `everything`.
    """
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in _FREE or opcode in COLLECTIVES or opcode.endswith("-done"):  # collectives are counted separately
        return 0
    if opcode in _SLICES:
        return 2 * _size(instruction.type)
    if opcode == "dynamic-update-slice":  # in place
        return 2 * _size(types[instruction.operands[1]])
    read = {operand: _size(types[operand]) for operand in instruction.operands}
    written = _size(instruction.type)
    if opcode == "fusion":
        (fused,) = (computations[name] for name in called_computations(instruction))
        for number, operand in enumerate(instruction.operands):
            read[operand] = min(read[operand], _read_of_parameter(fused.parameters[number], fused))
        root = next((i for i in fused.instructions if i.name == fused.root), None)
        if root is not None and root.opcode == "dynamic-update-slice":
            written = _size(fused.types[root.operands[1]])
    return sum(read.values()) + written


def _read_of_parameter(parameter: str, fused: Computation) -> int:
    users = [i for i in fused.instructions if parameter in i.operands]
    if users and all(i.opcode in _SLICES and i.operands[0] == parameter for i in users):
        return sum(_size(i.type) for i in users)
    if users and all(i.opcode == "dynamic-update-slice" and i.operands[0] == parameter for i in users):
        return 0
    return _size(fused.types[parameter])


def _size(type_: str) -> int:
    return sum(nbytes(*array) for array in arrays(type_))


def collective_bytes(instruction: Instruction, types: Mapping[str, str]) -> int:
    """Bytes of an all-gather's output, or of another collective's input, on one device."""
    operands = [array for operand in instruction.operands for array in arrays(types[operand])]
    found = operands
    if instruction.opcode == "all-gather":
        found = arrays(instruction.type)
    elif instruction.opcode == "all-gather-start":  # the type is (operands, results)
        found = arrays(instruction.type)[len(operands) : 2 * len(operands)]
    return sum(nbytes(*array) for array in found)


def dot_flops(instruction: Instruction, types: Mapping[str, str]) -> float:
    """FLOPs of a dot, 2 per multiply-add."""
    lhs = shape_of(types[instruction.operands[0]])
    contracted = attribute(_CONTRACTED, instruction)
    return 2.0 * math.prod(shape_of(instruction.type)) * math.prod(lhs[int(i)] for i in contracted.split(",") if i)


def convolution_flops(instruction: Instruction, types: Mapping[str, str]) -> float:
    """FLOPs of a convolution, 2 per multiply-add, without products with padding or the holes of a dilation.

    cuDNN's gradient kernels are described by the forward convolution, and cost the same.
    """
    shapes = [shape_of(types[operand]) for operand in instruction.operands[:2]] + [shape_of(instruction.type)]
    lhs, rhs, out = shapes
    if "convBackwardInput" in instruction.attributes:
        out, rhs, lhs = shapes
    elif "convBackwardFilter" in instruction.attributes:
        lhs, out, rhs = shapes
    lhs_labels, rhs_labels, out_labels = re.split("_|->", attribute(_DIM_LABELS, instruction))
    found = _WINDOW.search(instruction.attributes)
    window = dict(item.split("=") for item in found[1].split()) if found else {}

    def sizes(name: str) -> list[int]:
        return [int(size) for size in window[name].split("x")] if name in window else [1] * (len(out) - 2)

    pads = [int(pad.split("_")[0]) for pad in window["pad"].split("x")] if "pad" in window else [0] * (len(out) - 2)
    # The kernel's "i" dimension counts the inputs of one feature group; with batch groups likewise.
    flops = 2.0 * out[out_labels.index("b")] * out[out_labels.index("f")] * rhs[rhs_labels.index("i")]
    for dimension, (stride, pad, dilation, kernel_dilation) in enumerate(
        zip(sizes("stride"), pads, sizes("lhs_dilate"), sizes("rhs_dilate"), strict=True)
    ):
        label = str(dimension)
        inputs, kernel, outputs = (
            lhs[lhs_labels.index(label)],
            rhs[rhs_labels.index(label)],
            out[out_labels.index(label)],
        )
        flops *= valid_products(inputs, outputs, kernel, stride, pad, dilation, kernel_dilation)
    return flops
