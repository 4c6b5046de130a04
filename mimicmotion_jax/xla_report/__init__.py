"""What a compiled program takes per chip: memory, FLOPs, traffic; for devices at hand or devices that are not."""

from mimicmotion_jax.runtime.flops import count_flops, jaxpr_flops
from mimicmotion_jax.runtime.hardware import memory_bandwidth, memory_bytes, peak_flops
from mimicmotion_jax.xla_report.costs import KernelFlops
from mimicmotion_jax.xla_report.report import CompileReport, compile_report, describe
from mimicmotion_jax.xla_report.topologies import topology_devices

__all__ = [
    "CompileReport",
    "KernelFlops",
    "compile_report",
    "count_flops",
    "describe",
    "jaxpr_flops",
    "memory_bandwidth",
    "memory_bytes",
    "peak_flops",
    "topology_devices",
]
