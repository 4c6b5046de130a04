"""Train on a folder written by prepare_data.py: from SVD, from MimicMotion or from scratch, on one device or a pod."""

import argparse
import json
import logging
import signal
from pathlib import Path

from mimicmotion_jax.cli.common import log_to_stderr, script_parser
from mimicmotion_jax.config import load_config
from mimicmotion_jax.runtime import distributed
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import available_cores, split_cpu
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.loop import Run
from mimicmotion_jax.training.program import compile_only

EXAMPLES = """examples:
  python train.py --config configs/train_tiny.yaml data.dataset=data/dances
  python train.py --config configs/train_tiny.yaml data.dataset=data/dances mesh.data=2       two cores of a CPU
  python train.py --config configs/train_paper.yaml checkpoint=checkpoints/svd data.dataset=gs://bucket/dances
  python train.py --config configs/train_paper.yaml --compile-only --topology v5p:2x2x2

run the same command again to go on where a run stopped. On several hosts start it on each: SLURM's srun is recognised,
--distributed suits a Cloud TPU pod, --coordinator and its like everything else.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__, EXAMPLES, TrainConfig, meanings="configs/train_paper.yaml")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML; configs/train_*.yaml come with us")
    parser.add_argument("--compile-only", action="store_true", help="compile, print what it takes as JSON, and stop")
    parser.add_argument(
        "--topology", metavar="NAME", help="compile for TPUs or GPUs that are not here, e.g. v5p:2x2x2 or h100:8"
    )
    parser.add_argument("--distributed", action="store_true", help="several hosts that find each other (TPU pod)")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="several hosts, by hand: address of the first")
    parser.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    parser.add_argument("--process-id", type=int, metavar="I", help="which this one is, from 0")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train to the end (0), or to the signal that stopped it (128 + its number)."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.CRITICAL)  # what goes wrong is told in our words
    config = load_config(TrainConfig, args.config, args.options)
    if args.topology and not args.compile_only:
        raise InputError("--topology goes with --compile-only: there is nothing to train on.")
    if args.compile_only:
        print(json.dumps(compile_only(config, args.topology), indent=2))
        return 0

    joined = distributed.initialize(args.distributed, args.coordinator, args.num_processes, args.process_id)
    if not joined and config.mesh.given_devices <= available_cores():
        split_cpu(config.mesh.given_devices)
    enable_compilation_cache()
    run = Run(config)
    stopped_by = run.train()
    return 0 if stopped_by is None else 128 + signal.Signals(stopped_by)
