"""Trip counts of while loops in optimised HLO, as far as its text tells."""

import re

from mimicmotion_jax.xla_report.hlo import Computation, Instruction, attribute

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BODY = re.compile(r"body=%([\w.\-]+)")
_CONDITION = re.compile(r"condition=%([\w.\-]+)")
_INDEX = re.compile(r"index=(\d+)")
_DIRECTION = re.compile(r"direction=(\w+)")


def body_name(loop: Instruction) -> str:
    """Name of the computation that the loop repeats."""
    return attribute(_BODY, loop)


def trip_count(loop: Instruction, caller: Computation, computations: dict[str, Computation]) -> int | None:
    """Number of iterations of `loop`, an instruction of `caller`; None if it depends on data.

    XLA annotates most loops with it. For others, such as the partitioner's unrolled loops around matrix products, it is
    derived from the loop counter: its start, its step and its limit.
    """
    if known := _KNOWN.search(loop.attributes):
        return int(known[1])
    condition, body = computations[attribute(_CONDITION, loop)], computations[body_name(loop)]
    initial, compare = _definition(caller, loop.operands[0]), _definition(condition, condition.root)
    following = _definition(body, body.root)
    if not (initial and compare and following) or (initial.opcode, compare.opcode) != ("tuple", "compare"):
        return None
    if following.opcode != "tuple" or attribute(_DIRECTION, compare) != "LT":
        return None
    counter, limit = (_definition(condition, name) for name in compare.operands)
    index = _carried(counter)
    if index is None:
        return None
    start = _constant(_definition(caller, initial.operands[index]))
    last = _constant(limit)
    carried = _carried(limit)  # a limit that the loop passes through unchanged
    if carried is not None and _carried(_definition(body, following.operands[carried])) == carried:
        last = _constant(_definition(caller, initial.operands[carried]))
    step = _step(_definition(body, following.operands[index]), body, index)
    if start is None or last is None or not step:
        return None
    return max(0, -((start - last) // step))


def _definition(computation: Computation, name: str) -> Instruction | None:
    found = computation.definitions.get(name)
    return _definition(computation, found.operands[0]) if found and found.opcode in ("copy", "bitcast") else found


def _carried(definition: Instruction | None) -> int | None:
    found = definition and definition.opcode == "get-tuple-element" and _INDEX.search(definition.attributes)
    return int(found[1]) if found else None


def _constant(definition: Instruction | None) -> int | None:
    return int(definition.attributes) if definition and definition.opcode == "constant" else None


def _step(definition: Instruction | None, body: Computation, index: int) -> int | None:
    if definition is None or definition.opcode != "add":
        return None
    terms = [_definition(body, name) for name in definition.operands]
    steps = [_constant(term) for term in terms if _carried(term) != index]
    return steps[0] if len(steps) == 1 else None
