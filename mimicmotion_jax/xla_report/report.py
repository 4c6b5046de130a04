"""What a compiled program takes on each chip: memory, FLOPs, traffic, and whether it fits."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from mimicmotion_jax.runtime import hardware
from mimicmotion_jax.runtime.out_of_memory import is_out_of_memory
from mimicmotion_jax.xla_report.costs import KernelFlops, ProgramCosts, Traffic, program_costs


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip while the program runs."""

    arguments: int
    outputs: int
    donated: int  # outputs that take an argument's place
    temporaries: int
    code: int
    resident: int  # beside the program, such as frozen networks
    total: int  # arguments + outputs - donated + temporaries + code + resident


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """One program on one kind of chip; None stands for what is not known."""

    device_kind: str
    chips: int
    compile_seconds: float
    fits: bool | None
    problem: str | None  # the compiler's words where the program does not fit or cannot be read back
    memory_limit: int | None  # bytes per chip
    memory_needed: int | None  # bytes per chip; memory.total, or the compiler's word where it gave up
    memory: Memory | None
    flops_per_chip: float | None  # of one run, loops counted as often as they turn
    xla_flops_per_chip: float | None  # XLA's own count: a loop's body once, elementwise operations too
    collectives: dict[str, Traffic]  # per chip, by kind
    collective_bytes: int | None
    custom_calls: dict[str, int]  # runs of custom kernels, by name
    uncounted_calls: dict[str, int]  # those whose FLOPs are not in flops_per_chip
    unknown_loops: int  # loops whose length the program does not tell
    estimated_cycles: dict[str, int]  # by the TPU compiler, without custom kernels, by jax's primitive, dearest first
    least_seconds: dict[str, float]  # on a GPU at its peaks (`program_costs`), by kind of work, dearest first

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, ready for `json.dumps`."""
        return dataclasses.asdict(self)


def compile_report(
    lowered: Lowered,
    mesh: Mesh,
    *,
    resident_bytes: int = 0,
    kernel_flops: Mapping[str, KernelFlops] | None = None,
    unknown_turns: int = 1,
    compiler_options: Mapping[str, Any] | None = None,
) -> CompileReport:
    """Compile a program and say what it takes; a program too large for its chips gives a report, not an error.

    Args:
        lowered: `jax.jit(f).lower(...)` for the devices of `mesh`, which may be those of a topology that is not there.
        mesh: all devices that the program runs on, of one kind.
        resident_bytes: per chip, of arrays that live beside the program.
        kernel_flops: for custom kernels, by the start of the kernel's name: FLOPs from the shapes of its operands.
        unknown_turns: how often loops turn whose length the program does not tell.
        compiler_options: XLA options for this program alone, such as {"optimization_level": 1}.

    Raises:
        jax.errors.JaxRuntimeError: the compiler failed for another reason than memory.
    """
    start = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=dict(compiler_options or {}))
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return _too_large(mesh, time.perf_counter() - start, str(error).splitlines()[0], resident_bytes)
    seconds = time.perf_counter() - start
    options = {"resident_bytes": resident_bytes, "kernel_flops": kernel_flops, "unknown_turns": unknown_turns}
    return describe(compiled, mesh, seconds, **options)


def describe(
    compiled: Compiled,
    mesh: Mesh,
    compile_seconds: float,
    *,
    resident_bytes: int = 0,
    kernel_flops: Mapping[str, KernelFlops] | None = None,
    unknown_turns: int = 1,
) -> CompileReport:
    """The report of a program already compiled; arguments as for `compile_report`."""
    kind, limit = _device_kind(mesh), hardware.memory_bytes(_device_kind(mesh))
    memory = _memory(compiled, resident_bytes)
    costs, xla, problem = None, {}, None
    try:
        bandwidth = hardware.memory_bandwidth(kind)
        peaks = None if bandwidth is None else (hardware.peak_flops(kind), bandwidth)
        costs = program_costs(compiled.as_text(), kernel_flops, unknown_turns, peaks)
        xla = compiled.cost_analysis() or {}
    except jax.errors.JaxRuntimeError as error:  # jax may not understand a newer TPU compiler's instructions
        problem = f"the compiled program cannot be read back: {str(error).splitlines()[0]}"
    return CompileReport(
        device_kind=kind,
        chips=mesh.size,
        compile_seconds=round(compile_seconds, 3),
        fits=None if limit is None or memory is None else memory.total <= limit,
        problem=problem,
        memory_limit=limit,
        memory_needed=None if memory is None else memory.total,
        memory=memory,
        xla_flops_per_chip=xla.get("flops"),
        **_counted(costs),
    )


def _counted(costs: ProgramCosts | None) -> dict[str, Any]:
    """The fields that are read from the compiled program."""
    known, costs = costs is not None, costs or ProgramCosts()
    return {
        "flops_per_chip": costs.flops if known else None,
        "collectives": costs.collectives,
        "collective_bytes": sum(t.bytes for t in costs.collectives.values()) if known else None,
        "custom_calls": dict(costs.custom_calls),
        "uncounted_calls": dict(costs.uncounted_calls),
        "unknown_loops": costs.unknown_loops,
        "estimated_cycles": dict(costs.cycles.most_common()),
        "least_seconds": dict(costs.least_seconds.most_common()),
    }


def _memory(compiled: Compiled, resident_bytes: int) -> Memory | None:
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "donated": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
        "resident": resident_bytes,
    }
    return Memory(**parts, total=sum(parts.values()) - 2 * parts["donated"])


def _too_large(mesh: Mesh, seconds: float, problem: str, resident_bytes: int) -> CompileReport:
    # "... required for HLO temporaries (20.80G) exceeds ...": arguments and outputs are in it as well.
    needed = re.search(r"\(([\d.]+)([KMG])\) exceeds", problem)
    return CompileReport(
        device_kind=_device_kind(mesh),
        chips=mesh.size,
        compile_seconds=round(seconds, 3),
        fits=False,
        problem=problem,
        memory_limit=hardware.memory_bytes(_device_kind(mesh)),
        memory_needed=needed and int(float(needed[1]) * 1024 ** (" KMG".index(needed[2]))) + resident_bytes,
        memory=None,
        xla_flops_per_chip=None,
        **_counted(None),
    )


def _device_kind(mesh: Mesh) -> str:
    return mesh.devices.flat[0].device_kind
