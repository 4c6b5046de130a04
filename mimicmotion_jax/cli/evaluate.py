"""Evaluate under a named protocol: generate a test set and score it, or score videos that exist already."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from mimicmotion_jax.cli.common import log_to_stderr, script_parser
from mimicmotion_jax.evaluation.config import EvaluateConfig, load_options
from mimicmotion_jax.evaluation.run import Request, evaluate

EXAMPLES = """examples:
  python evaluate.py --checkpoint DIR --data data/test --protocol synthetic --output results/mine
  python evaluate.py --checkpoint DIR --data TikTok_dataset --protocol tiktok --output results/tiktok \\
      --resnet3d resnet-50-kinetics.pth --i3d i3d_pretrained_400.pt
  python evaluate.py --generated their_videos --data TikTok_dataset --protocol tiktok --output results/theirs

DATA holds one folder of frames (or NAME/images, as in the TikTok dataset) or one video per sequence; NAME.npz beside it
gives its keypoints, which are detected otherwise. The first frame is the reference and is not compared.

A video in --generated of as many frames as the true one begins with the reference, which is left out; any other begins
with the frame after it. What the longer of the two has more is not compared; videos that are too short are named.

OUTPUT/index.html shows everything; run the same command again to go on where a run stopped.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__, EXAMPLES, EvaluateConfig, meanings="configs/evaluate.yaml")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="generate with these weights")
    parser.add_argument("--generated", type=Path, metavar="DIR", help="score NAME.mp4 or NAME/*.png instead")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the test sequences")
    parser.add_argument("--protocol", required=True, metavar="NAME", help="tiktok, disco or synthetic")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="results, videos and page")
    parser.add_argument("--resnet3d", type=Path, metavar="FILE", help="resnet-50-kinetics.pth, for FID-VID")
    parser.add_argument("--i3d", type=Path, metavar="FILE", help="i3d_pretrained_400.pt, for FVD")
    parser.add_argument("--lpips", type=Path, nargs=2, metavar="FILE", help="AlexNet's weights and LPIPS' own")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with any of the options below")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, but float32 on CPU")
    parser.add_argument("--devices", type=int, metavar="N", help="default: all; a CPU counts as one, or as N")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Evaluate, and print the numbers."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    weights = {"resnet3d": args.resnet3d, "i3d": args.i3d}
    given = {name: [path] for name, path in weights.items() if path is not None}
    request = Request(
        protocol=args.protocol,
        data=args.data,
        output=args.output,
        checkpoint=args.checkpoint,
        generated=args.generated,
        weights=given | ({"lpips": args.lpips} if args.lpips else {}),
        dtype=args.dtype,
        num_devices=args.devices,
        command=shlex.join(["python", *sys.argv]),
    )
    brings_options = args.checkpoint if args.generated is None else None
    results = evaluate(request, load_options(brings_options, args.config, args.options))
    for column, scores in results["summary"].items():
        print(f"{column:16}" + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    print(f"protocol {args.protocol} ({results['protocol']['sha256'][:12]}); see {args.output / 'index.html'}")
    return 0
