"""Compile the programs of generation without inputs or weights, for devices that need not be at hand."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mimicmotion_jax import sharding
from mimicmotion_jax.inference.layout import lay_out
from mimicmotion_jax.inference.memory import Workload
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pipeline import DTypeName, MimicMotionPipeline, Quantization
from mimicmotion_jax.video.image import target_size
from mimicmotion_jax.xla_report import compile_report, topology_devices


def report_generation(
    options: GenerateConfig,
    model: ModelConfig,
    dtype: DTypeName = "bfloat16",
    topology: str | None = None,
    quantize: Quantization | None = None,
) -> dict[str, Any]:
    """Compile denoising and decoding of one video and report their memory and FLOPs, as plain values for JSON.

    Where steps are calls of several programs, the memory of `denoising` is that of the largest, and its work is that of
    all calls.

    Args:
        options: size, fusion, steps, group and chunk sizes; `num_frames` is the length of the video, by default as many
            as fit one window beside the reference's frame.
        model: sizes of the networks.
        dtype: of parameters and computation.
        topology: devices that need not be at hand, such as "v5e:2x4" or "h100:1"; None is the local devices.
        quantize: "int8" for weights in eight bits.

    Raises:
        InputError: an unknown topology, or options that do not fit each other.
    """
    mesh = sharding.sampling_mesh(devices=None if topology is None else topology_devices(topology))
    # A landscape picture stands for one that is not there yet.
    height, width = target_size(9, 16, options.resolution, options.shape, model.size_multiple)
    num_frames = options.num_frames or max((options.window_size or model.window_size) - 1, 1)
    pipeline = MimicMotionPipeline.abstract(model, dtype, mesh, quantize)
    programs = pipeline.lower(num_frames, height, width, options)
    layout = lay_out(mesh, model, options, 1, 1 + num_frames, height, width)
    sizes = {
        name: sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(getattr(pipeline, name))) for name in NETWORKS
    }
    windows = layout.plan.num_windows
    work = Workload(mesh, model, sizes, jnp.dtype(dtype).itemsize, options, 1, 1 + num_frames, height, width)
    kept = 0 if work.plan().unload else 1  # networks that a stage does not use stay on the devices
    decoding = _report(programs["decode_chunks"](), mesh, kept * (sum(sizes.values()) - sizes["vae"]))
    # Steps with guidance and without, with the whole UNet and its last layers, are programs of their own. The number of
    # groups is an argument of the program, not part of it.
    resident, trips = kept * (sizes["vae"] + sizes["image_encoder"]), -(-windows // layout.group)
    calls = [program for name, program in programs.items() if name.startswith("run_denoising")]
    denoising = [_report(program(), mesh, resident, trips) for program in calls]
    return {
        "topology": topology or mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "frames": num_frames,
        "windows": windows,
        "height": height,
        "width": width,
        "network_bytes": sizes,
        "denoising": _over_calls(denoising, [program.calls for program in calls]),
        "denoising_programs": [
            {"calls": program.calls, "flops_per_chip": report["flops_per_chip"]}
            for program, report in zip(calls, denoising, strict=True)
        ],
        "decoding": decoding,
    }


def _report(lowered: jax.stages.Lowered, mesh: Mesh, resident_bytes: int, trip_count: int = 1) -> dict[str, Any]:
    return compile_report(lowered, mesh, resident_bytes=resident_bytes, unknown_trip_count=trip_count).to_json()


def _over_calls(reports: Sequence[dict[str, Any]], calls: Sequence[int]) -> dict[str, Any]:
    """Combine the reports of programs that are called so many times: the largest memory, the sum of the work."""
    whole = dict(max(reports, key=lambda report: report["memory_needed"] or 0))
    for name in ("flops_per_chip", "collective_bytes"):
        values = [report[name] for report in reports]
        whole[name] = None if None in values else sum(map(operator.mul, calls, values))
    for name in ("custom_calls", "uncounted_calls", "estimated_cycles", "least_seconds"):
        parts = {part for report in reports for part in report[name]}
        whole[name] = {
            part: sum(count * report[name].get(part, 0) for count, report in zip(calls, reports, strict=True))
            for part in sorted(parts)
        }
    return whole
