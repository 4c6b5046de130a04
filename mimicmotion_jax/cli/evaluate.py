"""Evaluate under a named protocol: generate a test set and score it, or score existing videos."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.evaluation.config import EvaluateConfig, load_options
from mimicmotion_jax.evaluation.protocols import PROTOCOLS
from mimicmotion_jax.evaluation.run import ERROR_LOG, Request, evaluate
from mimicmotion_jax.metrics.network import NetworkName
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu
from mimicmotion_jax.runtime.errors import InputError

EXAMPLES = """examples:
  mimicmotion evaluate --checkpoint DIR --data data/test --protocol synthetic --output results/mine
  mimicmotion evaluate --checkpoint DIR --data TikTok_dataset --protocol tiktok --output results/tiktok \\
      --resnet3d resnet-50-kinetics.pth --i3d i3d_pretrained_400.pt
  mimicmotion evaluate --generated their_videos --data TikTok_dataset --protocol tiktok --output results/theirs

DATA holds one folder of frames (or NAME/images, as in the TikTok dataset) or one video per sequence. NAME.npz beside it
has its keypoints; without it they are detected. The first frame is the reference and is not compared.

A video in --generated with as many frames as the true one begins with the reference, which is skipped; any other begins
with the frame after it. Surplus frames of the longer video are not compared; videos that are too short are listed.

A sequence that fails is left out: results.json and the page say why, and the exit status is 1.

OUTPUT/index.html shows the results. The same command again continues an interrupted run.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__, EXAMPLES, EvaluateConfig, meanings="configs/evaluate.yaml")
    checkpoint = "weights to generate with: folder, gs://, hub id, small or small-student"
    parser.add_argument("--checkpoint", metavar="SOURCE", help=checkpoint)
    parser.add_argument("--generated", metavar="DIR", help="score these videos instead: NAME.mp4 or NAME/*.png")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of test sequences")
    parser.add_argument("--protocol", required=True, metavar="NAME", help=" | ".join(PROTOCOLS))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for results, videos and page")
    parser.add_argument("--resnet3d", nargs=1, metavar="FILE", help="resnet-50-kinetics.pth, for FID-VID")
    parser.add_argument("--i3d", nargs=1, metavar="FILE", help="i3d_pretrained_400.pt, for FVD")
    parser.add_argument("--lpips", nargs=2, metavar="FILE", help="AlexNet's weights and LPIPS' own")
    parser.add_argument("--config", type=path_or_url, metavar="FILE", help="YAML with any of the options below")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16; float32 on a CPU")
    parser.add_argument("--devices", type=int, metavar="N", help="default: all; a CPU counts as one, or as N")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the scores; return 1 if a sequence was left out."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    given: dict[NetworkName, list[str] | None] = {"resnet3d": args.resnet3d, "i3d": args.i3d, "lpips": args.lpips}
    request = Request(
        protocol=args.protocol,
        data=_local("--data", args.data),
        output=_local("--output", args.output),
        checkpoint=args.checkpoint,
        generated=None if args.generated is None else _local("--generated", args.generated),
        weights={name: [_local(f"--{name}", path) for path in paths] for name, paths in given.items() if paths},
        dtype=args.dtype,
        num_devices=args.devices,
        command=shlex.join(["mimicmotion", "evaluate", *(sys.argv[1:] if argv is None else argv)]),
    )
    with_defaults = args.checkpoint if args.generated is None else None
    enable_compilation_cache()
    split_cpu(args.devices or 1)
    results = evaluate(request, load_options(with_defaults, args.config, args.options))
    for column, scores in results["summary"].items():
        print(f"{column:16}" + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"protocol {args.protocol} ({results['protocol']['sha256'][:12]}); see {request.output / 'index.html'}")
    if not results["left_out"]:
        return 0
    names = ", ".join(results["left_out"])
    print(f"left out: {names}; reasons are in index.html, tracebacks in {request.output / ERROR_LOG}", file=sys.stderr)
    return 1


def _local(option: str, path: str) -> Path:
    """Refuse remote paths, which evaluation reads and writes only for checkpoints."""
    if "://" in path:
        raise InputError(f"{option} {path} must be on a local disk; copy it here, or copy the results afterwards.")
    return Path(path).expanduser()
