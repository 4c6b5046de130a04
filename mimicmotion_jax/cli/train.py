"""Train on a dataset of `mimicmotion prepare`: from SVD, from MimicMotion or from scratch, on one device or a pod."""

import argparse
import json
import logging
import signal
from typing import Any

from mimicmotion_jax import sharding
from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.config import load_config
from mimicmotion_jax.runtime import distributed
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import available_cores, split_cpu
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.networks import model_config
from mimicmotion_jax.training.program import lower_programs, step_flops
from mimicmotion_jax.training.tasks.diffusion import Diffusion
from mimicmotion_jax.training.trainer import train
from mimicmotion_jax.xla_report import compile_report, topology_devices

EXAMPLES = """examples:
  mimicmotion train --config configs/train_tiny.yaml data.dataset=data/dances
  mimicmotion train --config configs/train_tiny.yaml data.dataset=data/dances mesh.data=2       two cores of a CPU
  mimicmotion train --config configs/train_paper.yaml checkpoint=checkpoints/svd data.dataset=gs://bucket/dances
  mimicmotion train --config configs/train_paper.yaml --compile-only --topology v5p:2x2x2

A run that stopped is continued by the same command. With several hosts, start it on each: SLURM's srun is recognised,
--distributed suits a Cloud TPU pod, --coordinator and the options after it everything else.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__, EXAMPLES, TrainConfig, meanings="configs/train_paper.yaml")
    parser.add_argument("--config", type=path_or_url, metavar="FILE", help="YAML file, such as configs/train_*.yaml")
    parser.add_argument("--compile-only", action="store_true", help="compile, print memory and FLOPs as JSON, and stop")
    parser.add_argument(
        "--topology", metavar="NAME", help="compile for TPUs or GPUs that are not present, e.g. v5p:2x2x2 or h100:8"
    )
    parser.add_argument("--distributed", action="store_true", help="several hosts that find each other (TPU pod)")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="several hosts: address of the first")
    parser.add_argument("--num-processes", type=int, metavar="N", help="several hosts: number of processes")
    parser.add_argument("--process-id", type=int, metavar="I", help="several hosts: number of this process, from 0")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train to the end; returns 0, or 128 plus the number of the signal that stopped the run."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.CRITICAL)  # errors of libraries are reported in our own messages
    config = load_config(TrainConfig, args.config, args.options)
    if args.topology and not args.compile_only:
        raise InputError("--topology goes with --compile-only: these devices are not present.")
    if args.compile_only:
        print(json.dumps(compile_only(config, args.topology), indent=2))
        return 0

    joined = distributed.initialize(args.distributed, args.coordinator, args.num_processes, args.process_id)
    if not joined and config.mesh.given_devices <= available_cores():
        split_cpu(config.mesh.given_devices)
    enable_compilation_cache()
    stopped_by = train(Diffusion(config))
    return 0 if stopped_by is None else 128 + signal.Signals(stopped_by)


def compile_only(config: TrainConfig, topology: str | None = None) -> dict[str, Any]:
    """Compile the programs of a step; returns reports of what they take as plain dictionaries, ready for JSON.

    Args:
        config: of the run; neither its data nor its weights are read, only a checkpoint's sizes.
        topology: devices that need not be present, such as "v5p:2x2x2" or "a100:8"; None is the local devices.

    Raises:
        InputError: an unknown topology, or a configuration that does not suit it.
    """
    devices = None if topology is None else topology_devices(topology)
    mesh = sharding.training_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.frames, devices)
    reports = {
        name: compile_report(program.lowered, mesh, resident_bytes=program.resident_bytes)
        for name, program in lower_programs(config, mesh).items()
    }
    return {
        "topology": topology or mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "model_flops_per_sample": step_flops(config, model_config(config)),
        **{name: report.to_json() for name, report in reports.items()},
    }
