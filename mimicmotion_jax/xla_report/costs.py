"""FLOPs, collectives and custom kernels of one run of a compiled program, on one device.

The call graph is walked from the entry, and the body of a loop counts once per iteration.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
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
from mimicmotion_jax.xla_report.kernels import KERNEL_FLOPS, KernelFlops
from mimicmotion_jax.xla_report.loops import body_name, trip_count
from mimicmotion_jax.xla_report.operations import (
    CONTAINERS,
    collective_bytes,
    convolution_flops,
    dot_flops,
    kind_of_work,
    moved_bytes,
)

# Targets of custom calls that may multiply: Pallas kernels and libraries; other custom calls handle buffers.
_KERNELS = ("tpu_custom_call", "mosaic_gpu", "triton", "__cublas", "__cudnn", "__gpu", "__onednn")

# The TPU compiler repeats a collective that overlaps other work in each of the fusions it overlaps: a chain, of which
# only the fusion with the start counts.
_CHAIN, _CHAIN_START = "chain_id=", "AsyncCollectiveStart"


@dataclass
class Traffic:
    """Number of transfers and their total bytes."""

    count: int = 0
    bytes: int = 0


@dataclass
class ProgramCosts:
    """Totals over one run of a program, on one device."""

    flops: float = 0.0
    collectives: dict[str, Traffic] = field(default_factory=dict)  # by kind, such as "all-gather"
    custom_calls: Counter[str] = field(default_factory=Counter)  # runs by kernel name
    uncounted_calls: Counter[str] = field(default_factory=Counter)  # custom calls of unknown FLOPs, runs by kernel name
    unknown_loops: int = 0  # loops whose trip count the program does not tell
    cycles: Counter[str] = field(default_factory=Counter)  # the TPU compiler's estimates, by jax primitive
    least_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # by kind of work

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
        """Add `count` collectives of `size` bytes in total."""
        traffic = self.collectives.setdefault(kind, Traffic())
        traffic.count += count
        traffic.bytes += size


def program_costs(
    text: str,
    kernel_flops: Mapping[str, KernelFlops] = KERNEL_FLOPS,
    unknown_trip_count: int = 1,
    peaks: tuple[float, float] | None = None,
) -> ProgramCosts:
    """Sum up the costs of one run of a program from its optimised HLO (`compiled.as_text()`).

    FLOPs are 2 per multiply-add of every dot and convolution, inside fusions too; products with padding or with the
    holes of a dilation are left out (XLA writes batched matrix products as convolutions that are mostly padding). A
    conditional counts its most expensive branch. The bytes of an all-gather are its output's, those of the other
    collectives their input's.

    Args:
        text: HLO of the partitioned program, in which shapes are per device.
        kernel_flops: FLOPs of custom kernels, by the start of the kernel's name.
        unknown_trip_count: iterations assumed of loops whose trip count the program does not tell.
        peaks: FLOP/s and bytes/s of the chip, for `least_seconds`: each operation takes the longer of its FLOPs at the
            first rate and its operands and results at the second.
    """
    computations, entry = read_hlo(text.splitlines(), everything=peaks is not None)
    return _Walk(computations, kernel_flops, unknown_trip_count, peaks).costs(entry)


class _Walk:
    """Costs of all computations of a program, each computed once."""

    def __init__(
        self,
        computations: dict[str, Computation],
        kernel_flops: Mapping[str, KernelFlops],
        unknown_trip_count: int,
        peaks: tuple[float, float] | None,
    ):
        self._computations, self._peaks = computations, peaks
        self._kernel_flops, self._unknown_trip_count = kernel_flops, unknown_trip_count
        self._done: dict[str, ProgramCosts] = {}

    def costs(self, name: str) -> ProgramCosts:
        if name not in self._done:
            computation = self._computations[name]
            total = ProgramCosts(cycles=Counter(computation.cycles))
            for instruction in computation.instructions:
                flops = total.flops
                self._add(total, instruction, computation)
                if self._peaks and instruction.opcode not in CONTAINERS:
                    seconds = self._least_seconds(instruction, computation, total.flops - flops, *self._peaks)
                    if seconds:
                        total.least_seconds[kind_of_work(instruction, self._computations)] += seconds
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
            trips = trip_count(instruction, caller, self._computations)
            total.unknown_loops += trips is None
            total.add(self.costs(body_name(instruction)), self._unknown_trip_count if trips is None else trips)
        elif opcode == "conditional":
            total.add(max(map(self.costs, branches(instruction)), key=lambda costs: costs.flops))
        elif opcode == "custom-call":
            self._add_kernel(total, instruction, types)
        if opcode in ("fusion", "call", "async"):
            for called in called_computations(instruction):
                costs = self.costs(called)
                if opcode == "fusion":  # whose time is estimated as a whole, in the caller
                    costs = replace(costs, cycles=Counter(), least_seconds=defaultdict(float))
                total.add(costs)

    def _least_seconds(
        self, instruction: Instruction, caller: Computation, flops: float, peak_flops: float, bandwidth: float
    ) -> float:
        moved = moved_bytes(instruction, caller.types, self._computations)
        return max(flops / peak_flops, moved / bandwidth)

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
