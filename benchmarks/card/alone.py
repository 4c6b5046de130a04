"""Ours without PyTorch: speed, gradients, and programs compiled for chips that are absent."""

import functools
import json

import jax
import jax.numpy as jnp

from card.candidates import LAYERS, TPU, Candidate
from card.gradients import keep_gradients, reduced
from card.inputs import fast_dtype, random_pipeline
from card.kernels import PRESENT, abstract_block, blocks, lower_with
from card.measuring import jax_peak, measure
from card.our_side import Ours
from card.results import Results, Row
from card.sizes import size_of
from mimicmotion_jax import sharding
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.xla_report import compile_report, topology_devices


def inference(results: Results, part: str, size: str) -> None:
    """Measure UNet, decoding and generation."""
    _measure(results, part, size, ("unet", "decode", "generation"))


def training(results: Results, part: str, size: str) -> None:
    """Measure the forward and backward pass of one window."""
    _measure(results, part, size, ("training",))


def gradients_bfloat16(results: Results, part: str, size: str) -> None:
    """Compute gradients in bfloat16."""
    results.row(part, "gradients", functools.partial(_gradients, results, part, size, "bfloat16"))


def gradients_float32(results: Results, part: str, size: str) -> None:
    """Compute gradients in float32."""
    results.row(part, "gradients", functools.partial(_gradients, results, part, size, "float32"))


def _measure(results: Results, part: str, size: str, names: tuple[str, ...]) -> None:
    enable_compilation_cache()
    ours = Ours(size_of(size), random_pipeline(size_of(size), fast_dtype()))

    def row(name: str) -> Row:
        with ours.precision:
            return measure(getattr(ours, name)(), ours.size.rounds)[0] | jax_peak()

    for name in names:
        results.row(part, name, functools.partial(row, name))


def _gradients(results: Results, part: str, size: str, dtype: str) -> Row:
    enable_compilation_cache()
    ours = Ours(reduced(size), random_pipeline(reduced(size), dtype))
    return keep_gradients(results, part, ours) | jax_peak()


def compile_for(topology: str, size: str = "full", *names: str) -> int:
    """Compile blocks with each candidate for an absent TPU; print the compiler's cycles and memory, a line for each.

    Args:
        topology: one chip, such as "v5e:1x1".
        size: "full", "middle" or "tiny".
        names: words that "BLOCK: CANDIDATE" contains; none takes all.
    """
    mesh = sharding.sampling_mesh(devices=topology_devices(topology))
    place = sharding.replicated(mesh)
    execution = sharding.sampling_execution(sharding.window_mesh(mesh, 1, 2, 1, 1))
    for name, (kind, build, shapes) in blocks(size_of(size)).items():
        run, params, inputs = abstract_block(build, shapes)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=place), (params, *inputs)
        )
        for candidate, way in {PRESENT: Candidate(()), **LAYERS, **TPU}.items():
            wanted = not names or any(word in f"{name}: {candidate}" for word in names)
            if wanted and (candidate == PRESENT or kind in way.blocks):
                lowered = lower_with(run, arguments, way, execution=execution)
                # The compiler has no estimate for the attention kernels, so their FLOPs are left out as well.
                report = compile_report(lowered, mesh, kernel_flops={})
                row = {
                    "block": name,
                    "candidate": candidate,
                    "Mcycles": round(sum(report.estimated_cycles.values()) / 1e6, 3),
                    "GB": report.memory_needed and round(report.memory_needed / 1e9, 4),
                    "problem": report.problem,
                    "compile_s": round(report.compile_seconds, 1),
                }
                print(json.dumps(row), flush=True)
    return 0
