"""Report memory, FLOPs and traffic per chip of a compiled program, for devices present or absent.

A tool beside the product: `--compile-only`, the benchmarks and the tests use it. `compile_report` compiles a
`jax.stages.Lowered`; `topology_devices` gives TPU slices and GPUs to lower for without having them.

Memory and XLA's own FLOP count come from jax's `memory_analysis()` and `cost_analysis()`. The optimised HLO is read as
well, because `cost_analysis()` counts a loop's body once (a denoising program is one loop over 25 steps), a custom
kernel not at all, and tells neither the bytes sent between chips nor where the time goes. The tables in
benchmarks/results rest on these figures.
"""

from mimicmotion_jax.xla_report.report import CompileReport, compile_report
from mimicmotion_jax.xla_report.topologies import topology_devices

__all__ = ["CompileReport", "compile_report", "topology_devices"]
