"""FLOPs, collectives and custom kernels of one run of a compiled program, on one device.

XLA's own analysis counts the body of a loop once. Here the call graph is walked from the entry, and a loop's body
counts as often as it runs.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mimicmotion_jax.xla_report.hlo import (
    COLLECTIVES,
    Computation,
    Instruction,
    branches,
    called_computations,
    custom_call_target,
    read_hlo,
    shape_of,
)
from mimicmotion_jax.xla_report.loops import body_name, trip_count
from mimicmotion_jax.xla_report.operations import (
    CONTAINERS,
    collective_bytes,
    convolution_flops,
    dot_flops,
    kind_of_work,
    moved_bytes,
)

# Custom calls that may multiply: Pallas kernels and the libraries' own; others allocate or relabel buffers.
_KERNELS = ("tpu_custom_call", "mosaic_gpu", "triton", "__cublas", "__cudnn", "__gpu", "__onednn")

# A collective that the TPU compiler moves along beside other work is written out in each of the fusions that it runs
# beside: a chain, which one of them starts.
_CHAIN, _CHAIN_START = "chain_id=", "AsyncCollectiveStart"

KernelFlops = Callable[[list[tuple[int, ...]]], float]  # FLOPs of one run, from the shapes of the operands


@dataclass
class Traffic:
    """How often something happens, and with how many bytes in all."""

    count: int = 0
    bytes: int = 0


@dataclass
class ProgramCosts:
    """Totals over one run of a program, on one device."""

    flops: float = 0.0
    collectives: dict[str, Traffic] = field(default_factory=dict)  # by kind, such as "all-gather"
    custom_calls: Counter[str] = field(default_factory=Counter)  # runs by kernel name
    uncounted_calls: Counter[str] = field(default_factory=Counter)  # those of unknown FLOPs, runs by kernel name
    unknown_loops: int = 0  # loops of unknown length, counted as one turn
    cycles: Counter[str] = field(default_factory=Counter)  # the TPU compiler's estimates, by jax's primitive
    least_seconds: Counter[str] = field(default_factory=Counter)  # at a chip's peaks, by kind of work

    def add(self, other: "ProgramCosts", times: int = 1) -> None:
        """Add `times` runs of `other`."""
        self.flops += times * other.flops
        for kind, traffic in other.collectives.items():
            self.add_collective(kind, times * traffic.count, times * traffic.bytes)
        self.unknown_loops += other.unknown_loops
        for name in ("custom_calls", "uncounted_calls", "cycles", "least_seconds"):
            mine = getattr(self, name)
            for key, amount in getattr(other, name).items():
                mine[key] += times * amount

    def add_collective(self, kind: str, count: int, size: int) -> None:
        """Add `count` collectives of `size` bytes together."""
        traffic = self.collectives.setdefault(kind, Traffic())
        traffic.count += count
        traffic.bytes += size


def program_costs(
    text: str,
    kernel_flops: Mapping[str, KernelFlops] | None = None,
    unknown_turns: int = 1,
    peaks: tuple[float, float] | None = None,
) -> ProgramCosts:
    """The costs of one run of the program whose optimised HLO is `text` (`compiled.as_text()`).

    FLOPs are 2 per multiply-add of every dot and convolution, inside fusions too; products with padding or with the
    holes of a dilation are left out (XLA writes batched matrix products as convolutions that are mostly padding). Of a
    conditional the dearest branch counts. Bytes of a collective are what the device ends up with for an all-gather,
    and what it puts in for the others.

    Args:
        text: of a partitioned program: shapes are one device's.
        kernel_flops: for custom kernels, by the start of the kernel's name: FLOPs from the shapes of its operands.
        unknown_turns: how often loops turn whose length the program does not tell.
        peaks: the chip's FLOP/s and bytes/s, for `least_seconds`: each operation takes as long as its products at the
            one or its operands and results at the other, whichever is longer.
    """
    computations, entry = read_hlo(text.splitlines(), everything=peaks is not None)
    return _Walk(computations, kernel_flops or {}, unknown_turns, peaks).costs(entry)


class _Walk:
    """The costs of computations, each worked out once however often it is called."""

    def __init__(
        self,
        computations: dict[str, Computation],
        kernel_flops: Mapping[str, KernelFlops],
        unknown_turns: int,
        peaks: tuple[float, float] | None,
    ):
        self._computations, self._peaks = computations, peaks
        self._kernel_flops, self._unknown_turns = kernel_flops, unknown_turns
        self._done: dict[str, ProgramCosts] = {}

    def costs(self, name: str) -> ProgramCosts:
        if name not in self._done:
            computation = self._computations[name]
            total = ProgramCosts(cycles=Counter(computation.cycles))
            for instruction in computation.instructions:
                flops = total.flops
                self._add(total, instruction, computation)
                if self._peaks and instruction.opcode not in CONTAINERS:
                    self._add_seconds(total, instruction, computation, total.flops - flops)
            self._done[name] = total
        return self._done[name]

    def _add(self, total: ProgramCosts, instruction: Instruction, caller: Computation) -> None:
        types = caller.types
        opcode = instruction.opcode.removesuffix("-start")
        if opcode == "dot":
            total.flops += dot_flops(instruction, types)
        elif opcode == "convolution":
            total.flops += convolution_flops(instruction, types)
        elif opcode in COLLECTIVES:
            if _CHAIN not in instruction.attributes or _starts_chain(caller):
                total.add_collective(opcode, 1, collective_bytes(instruction, types))
        elif opcode == "while":
            turns = trip_count(instruction, caller, self._computations)
            total.unknown_loops += turns is None
            total.add(self.costs(body_name(instruction)), self._unknown_turns if turns is None else turns)
        elif opcode == "conditional":
            total.add(max(map(self.costs, branches(instruction)), key=lambda costs: costs.flops))
        elif opcode == "custom-call":
            self._add_kernel(total, instruction, types)
        if opcode in ("fusion", "call", "async"):
            for called in called_computations(instruction):
                costs = self.costs(called)
                # The estimate for a fusion is its caller's.
                total.add(replace(costs, cycles=Counter(), least_seconds=Counter()) if opcode == "fusion" else costs)

    def _add_seconds(self, total: ProgramCosts, instruction: Instruction, caller: Computation, flops: float) -> None:
        compute, bandwidth = self._peaks
        moved = moved_bytes(instruction, caller.types, self._computations)
        if seconds := max(flops / compute, moved / bandwidth):
            total.least_seconds[kind_of_work(instruction, self._computations)] += seconds

    def _add_kernel(self, total: ProgramCosts, instruction: Instruction, types: Mapping[str, str]) -> None:
        target = custom_call_target(instruction)
        if not target.startswith(_KERNELS):
            return
        name = re.sub(r"(\.\d+)+$", "", instruction.name) if target == "tpu_custom_call" else target
        total.custom_calls[name] += 1
        known = next((flops for start, flops in self._kernel_flops.items() if name.startswith(start)), None)
        if "conv" in target:  # cuDNN's
            total.flops += convolution_flops(instruction, types)
        elif known is None:
            total.uncounted_calls[name] += 1
        else:
            total.flops += known([shape_of(types[operand]) for operand in instruction.operands])


def _starts_chain(computation: Computation) -> bool:
    return any(
        instruction.opcode == "custom-call" and custom_call_target(instruction) == _CHAIN_START
        for instruction in computation.instructions
    )
