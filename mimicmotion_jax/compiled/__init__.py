"""What a compiled program takes per chip: memory, FLOPs, traffic; for devices at hand or a TPU slice that is not."""

from mimicmotion_jax.compiled.costs import KernelFlops
from mimicmotion_jax.compiled.flops import count_flops, jaxpr_flops
from mimicmotion_jax.compiled.hardware import memory_bytes, peak_flops, topology_devices
from mimicmotion_jax.compiled.report import CompileReport, compile_report, describe

__all__ = [
    "CompileReport",
    "KernelFlops",
    "compile_report",
    "count_flops",
    "describe",
    "jaxpr_flops",
    "memory_bytes",
    "peak_flops",
    "topology_devices",
]
