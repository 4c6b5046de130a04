"""Report on one compiled program: memory, FLOPs and traffic on each chip, and whether it fits."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from mimicmotion_jax.runtime.hardware import memory_bandwidth, memory_bytes, peak_flops
from mimicmotion_jax.runtime.out_of_memory import is_out_of_memory
from mimicmotion_jax.xla_report.costs import ProgramCosts, Traffic, program_costs
from mimicmotion_jax.xla_report.kernels import KERNEL_FLOPS, KernelFlops


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of one chip while the program runs, in bytes (jax's `memory_analysis()`)."""

    arguments: int
    outputs: int
    donated: int  # outputs in the memory of donated arguments
    temporaries: int
    code: int
    resident: int  # arrays that stay in memory beside the program, such as frozen networks
    total: int  # arguments + outputs - donated + temporaries + code + resident


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """Costs of one program on one kind of chip; None where a value is unknown."""

    device_kind: str
    chips: int
    compile_seconds: float
    fits: bool | None
    problem: str | None  # the compiler's message if the program does not fit or cannot be read back
    memory_limit: int | None  # bytes per chip
    memory_needed: int | None  # bytes per chip; memory.total, or what the compiler says if it gave up
    memory: Memory | None
    flops_per_chip: float | None  # of one run, a loop's body counted once per iteration
    xla_flops_per_chip: float | None  # jax's cost_analysis(): a loop's body once, elementwise operations too
    collectives: dict[str, Traffic]  # per chip, by kind
    collective_bytes: int | None
    custom_calls: dict[str, int]  # runs of custom kernels, by name
    uncounted_calls: dict[str, int]  # custom kernels whose FLOPs are not in flops_per_chip
    unknown_loops: int  # loops whose trip count the program does not tell
    estimated_cycles: dict[str, int]  # the TPU compiler's, without custom kernels, by jax primitive, largest first
    least_seconds: dict[str, float]  # on a GPU at its peaks (`program_costs`), by kind of work, largest first

    def to_json(self) -> dict[str, Any]:
        """Convert to plain dictionaries and numbers, ready for `json.dumps`."""
        return dataclasses.asdict(self)


def compile_report(
    lowered: Lowered,
    mesh: Mesh,
    *,
    resident_bytes: int = 0,
    kernel_flops: Mapping[str, KernelFlops] = KERNEL_FLOPS,
    unknown_trip_count: int = 1,
    compiler_options: Mapping[str, Any] | None = None,
) -> CompileReport:
    """Compile a program and report its costs; a program too large for its chips gives a report, not an error.

    Args:
        lowered: `jax.jit(f).lower(...)` for the devices of `mesh`, which may come from `topology_devices`.
        mesh: all devices that the program runs on, of one kind.
        resident_bytes: bytes per chip of arrays that stay in memory beside the program.
        kernel_flops: FLOPs of custom kernels from the shapes of their operands, by the start of the kernel's name.
        unknown_trip_count: iterations assumed of loops whose trip count the program does not tell.
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
    return describe(
        compiled,
        mesh,
        seconds,
        resident_bytes=resident_bytes,
        kernel_flops=kernel_flops,
        unknown_trip_count=unknown_trip_count,
    )


def describe(
    compiled: Compiled,
    mesh: Mesh,
    compile_seconds: float,
    *,
    resident_bytes: int = 0,
    kernel_flops: Mapping[str, KernelFlops] = KERNEL_FLOPS,
    unknown_trip_count: int = 1,
) -> CompileReport:
    """Report on a program that is compiled already; arguments as for `compile_report`."""
    kind = _device_kind(mesh)
    limit, peak, bandwidth = memory_bytes(kind), peak_flops(kind), memory_bandwidth(kind)
    memory = _memory(compiled, resident_bytes)
    costs, xla, problem = None, {}, None
    try:
        peaks = None if peak is None or bandwidth is None else (peak, bandwidth)
        costs = program_costs(compiled.as_text() or "", kernel_flops, unknown_trip_count, peaks)
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
    """Fields of `CompileReport` that are read from the program's HLO."""
    known, costs = costs is not None, costs or ProgramCosts()
    return {
        "flops_per_chip": costs.flops if known else None,
        "collectives": costs.collectives,
        "collective_bytes": sum(t.bytes for t in costs.collectives.values()) if known else None,
        "custom_calls": dict(costs.custom_calls),
        "uncounted_calls": dict(costs.uncounted_calls),
        "unknown_loops": costs.unknown_loops,
        "estimated_cycles": dict(costs.cycles.most_common()),
        "least_seconds": dict(sorted(costs.least_seconds.items(), key=lambda item: -item[1])),
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
    # "... required for HLO temporaries (20.80G) exceeds ...": the number includes arguments and outputs.
    needed = re.search(r"\(([\d.]+)([KMG])\) exceeds", problem)
    return CompileReport(
        device_kind=_device_kind(mesh),
        chips=mesh.size,
        compile_seconds=round(seconds, 3),
        fits=False,
        problem=problem,
        memory_limit=memory_bytes(_device_kind(mesh)),
        memory_needed=needed and int(float(needed[1]) * 1024 ** (" KMG".index(needed[2]))) + resident_bytes,
        memory=None,
        xla_flops_per_chip=None,
        **_counted(None),
    )


def _device_kind(mesh: Mesh) -> str:
    return mesh.devices.flat[0].device_kind
