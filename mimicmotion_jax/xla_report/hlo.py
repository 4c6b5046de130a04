"""Parser of optimised HLO text: the instructions that cost something.

The text of a large program is hundreds of megabytes, so it is read once, line by line, and only the few instructions
that matter are parsed in full.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Instruction:
    """One line of HLO: `name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    attributes: str


@dataclass
class Computation:
    """A computation: types and opcodes by name, the instructions that cost something, the constants of loops."""

    types: dict[str, str] = field(default_factory=dict)
    opcodes: dict[str, str] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)  # name by parameter number
    instructions: list[Instruction] = field(default_factory=list)
    definitions: dict[str, Instruction] = field(default_factory=dict)  # tuples and integer scalars
    cycles: Counter[str] = field(default_factory=Counter)  # the TPU compiler's estimates, by jax primitive
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
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PRIMITIVE = re.compile(r'op_name="[^"]*?([\w\-]*)"')


def read_hlo(lines: Iterable[str], everything: bool = False) -> tuple[dict[str, Computation], str]:
    """Parse a program; return its computations by name and the name of the entry.

    Args:
        lines: HLO text.
        everything: keep all instructions, not only those that multiply, communicate or call.
    """
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
        if everything or opcode in _READ:
            current.instructions.append(_instruction(match, line))
        if opcode == "parameter":
            current.parameters[int(line[match.end() :].partition(")")[0])] = name
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
    name, type_, opcode = match.groups()
    return Instruction(name, type_, opcode, _NAME.findall(operands), attributes)


def called_computations(instruction: Instruction) -> list[str]:
    """Names of the computations that a fusion, a call or a reduction runs."""
    return _names(_CALLED, instruction.attributes)


def branches(instruction: Instruction) -> list[str]:
    """Names of the computations that a conditional chooses from."""
    return _names(_BRANCHES, instruction.attributes)


def custom_call_target(instruction: Instruction) -> str:
    """Name of the library function behind a custom call."""
    return attribute(_TARGET, instruction)


def attribute(pattern: re.Pattern[str], instruction: Instruction) -> str:
    """First group of `pattern` in the attributes of an instruction, which always has it."""
    found = pattern.search(instruction.attributes)
    assert found is not None, (pattern.pattern, instruction)
    return found[1]


def _names(pattern: re.Pattern[str], attributes: str) -> list[str]:
    return [name for group in pattern.findall(attributes) for name in _NAME.findall(group)]


def arrays(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    """Element types and shapes in a type: one of an array, several of a tuple."""
    return [
        (kind, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for kind, sizes in _ARRAY.findall(type_)
    ]


def shape_of(type_: str) -> tuple[int, ...]:
    """Shape in a type such as "bf16[256,512]{1,0}"; for a tuple the shape of its first array."""
    return arrays(type_)[0][1]


def nbytes(kind: str, shape: tuple[int, ...]) -> int:
    """Size of an array in bytes, from its HLO element type and shape."""
    bits = re.match(r"[a-z]+(\d+)", kind)  # bf16, f8e4m3fn, s4; pred takes a byte, a token nothing
    return math.ceil(math.prod(shape) * (int(bits[1]) if bits else 8 * (kind == "pred")) / 8)
