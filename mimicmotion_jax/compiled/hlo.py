"""Reading optimised HLO text: the instructions that cost something, and what each of them costs.

The text of a large program is hundreds of megabytes, so it is read once, line by line, and only the few instructions
that matter are looked at closely.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mimicmotion_jax.compiled.flops import valid_products


@dataclass
class Instruction:
    """One line: `name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    attributes: str


@dataclass
class Computation:
    """Types and opcodes by name, the instructions that cost something, and what tells how often loops turn."""

    types: dict[str, str] = field(default_factory=dict)
    opcodes: dict[str, str] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    definitions: dict[str, Instruction] = field(default_factory=dict)  # of tuples and integer scalars
    cycles: Counter[str] = field(default_factory=Counter)  # the TPU compiler's estimates, by jax's primitive
    root: str = ""


COLLECTIVES = frozenset(
    (
        "all-gather",
        "all-reduce",
        "all-to-all",
        "collective-broadcast",
        "collective-permute",
        "ragged-all-to-all",
        "reduce-scatter",
    )
)
CALLERS = frozenset(("fusion", "call", "async-start", "while", "conditional"))
_READ = COLLECTIVES | CALLERS | {f"{kind}-start" for kind in COLLECTIVES} | {"convolution", "dot", "custom-call"}

_HEADER = re.compile(r"(ENTRY )?%?([^\s(]+) \(.*\{$")
# A tuple type contains parentheses (tiles), but only its own last one is followed by a space and the opcode.
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][\w-]*)\(")
_COUNTERS = frozenset(("add", "bitcast", "compare", "copy", "get-tuple-element"))
_SCALARS = ("s32[]", "u32[]", "s64[]", "u64[]", "pred[]")
_CONSTANT = re.compile(r"(-?\d+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations)=\{?((?:%[\w.\-]+(?:, )?)+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{|true_computation=|false_computation=)((?:%[\w.\-]+(?:, )?)+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PRIMITIVE = re.compile(r'op_name="[^"]*?([\w\-]*)"')
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_DIM_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


def read_hlo(lines: Iterable[str]) -> tuple[dict[str, Computation], str]:
    """All computations by name, and the name of the one that the program starts with."""
    computations: dict[str, Computation] = {}
    current, entry = Computation(), ""
    for line in lines:
        if not line.startswith(" "):
            if header := _HEADER.match(line):
                current = computations[header[2]] = Computation()
                entry = header[2] if header[1] else entry
            continue
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, type_, opcode = match.groups()
        current.types[name] = type_
        current.opcodes[name] = sys.intern(opcode)
        if opcode in _READ:
            current.instructions.append(_instruction(match, line))
        elif opcode == "tuple" or (opcode in _COUNTERS and type_.startswith(_SCALARS)):
            current.definitions[name] = _instruction(match, line)
        elif opcode == "constant" and type_.startswith(_SCALARS) and (value := _CONSTANT.match(line, match.end())):
            current.definitions[name] = Instruction(name, type_, opcode, [], value[1])
        if cycles := _CYCLES.search(line):
            primitive = _PRIMITIVE.search(line)
            current.cycles[(primitive and primitive[1]) or opcode] += int(cycles[1])
        if "ROOT" in line[: match.start(1)]:
            current.root = name
    return computations, entry


def _instruction(match: re.Match[str], line: str) -> Instruction:
    operands, _, attributes = line[match.end() :].partition(")")
    return Instruction(*match.groups(), _NAME.findall(operands), attributes)


def called_computations(instruction: Instruction) -> list[str]:
    """What a fusion, a call or a reduction runs."""
    return _names(_CALLED, instruction.attributes)


def branches(instruction: Instruction) -> list[str]:
    """What a conditional chooses from."""
    return _names(_BRANCHES, instruction.attributes)


def custom_call_target(instruction: Instruction) -> str:
    """The name of the library's function behind a custom call."""
    return _TARGET.search(instruction.attributes)[1]


def _names(pattern: re.Pattern[str], attributes: str) -> list[str]:
    return [name for group in pattern.findall(attributes) for name in _NAME.findall(group)]


def _arrays(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (kind, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for kind, sizes in _ARRAY.findall(type_)
    ]


def shape_of(type_: str) -> tuple[int, ...]:
    """The shape in a type such as "bf16[256,512]{1,0}"; of a tuple, that of its first array."""
    return _arrays(type_)[0][1]


def _nbytes(kind: str, shape: tuple[int, ...]) -> int:
    bits = re.match(r"[a-z]+(\d+)", kind)  # bf16, f8e4m3fn, s4; pred takes a byte, a token nothing
    return math.ceil(math.prod(shape) * (int(bits[1]) if bits else 8 * (kind == "pred")) / 8)


def collective_bytes(instruction: Instruction, types: Mapping[str, str]) -> int:
    """What the device ends up with for an all-gather, what it puts in for the others."""
    operands = [array for operand in instruction.operands for array in _arrays(types[operand])]
    arrays = operands
    if instruction.opcode == "all-gather":
        arrays = _arrays(instruction.type)
    elif instruction.opcode == "all-gather-start":  # the type is (operands, results)
        arrays = _arrays(instruction.type)[len(operands) : 2 * len(operands)]
    return sum(_nbytes(*array) for array in arrays)


def dot_flops(instruction: Instruction, types: Mapping[str, str]) -> float:
    """2 per multiply-add."""
    lhs = shape_of(types[instruction.operands[0]])
    contracted = _CONTRACTED.search(instruction.attributes)[1]
    return 2.0 * math.prod(shape_of(instruction.type)) * math.prod(lhs[int(i)] for i in contracted.split(",") if i)


def convolution_flops(instruction: Instruction, types: Mapping[str, str]) -> float:
    """2 per multiply-add, of products with elements of the input: neither padding nor holes of its dilation."""
    lhs, rhs = (shape_of(types[operand]) for operand in instruction.operands)
    out = shape_of(instruction.type)
    lhs_labels, rhs_labels, out_labels = _DIM_LABELS.search(instruction.attributes).groups()
    found = _WINDOW.search(instruction.attributes)
    window = dict(item.split("=") for item in found[1].split()) if found else {}

    def sizes(name: str) -> list[int]:
        return [int(size) for size in window[name].split("x")] if name in window else [1] * (len(out) - 2)

    pads = [int(pad.split("_")[0]) for pad in window["pad"].split("x")] if "pad" in window else [0] * (len(out) - 2)
    # The kernel's "i" is one feature group's already; with batch groups an output sees one group, hence one "i" too.
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
