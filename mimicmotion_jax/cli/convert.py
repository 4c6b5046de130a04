"""Convert the official PyTorch checkpoints of SVD and MimicMotion to ours, and ours back; see --help."""

import argparse
import os

# Conversion computes nothing: it needs no accelerator and should not take its memory.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from mimicmotion_jax.convert import convert, export_torch

EXAMPLES = """examples:
  python convert_weights.py --svd stabilityai/stable-video-diffusion-img2vid-xt-1-1 \\
      --mimicmotion tencent/MimicMotion --output checkpoints/mimicmotion
  python convert_weights.py --svd weights/svd --mimicmotion weights/MimicMotion_1-1.pth --output checkpoints/mimicmotion
  python convert_weights.py --svd weights/svd --mimicmotion none --output checkpoints/svd     # where training starts
  python convert_weights.py --to-torch checkpoints/mimicmotion --output weights/exported      # the way back
"""


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, convert, say where the result is."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--svd", metavar="DIR_OR_HUB_ID", help="SVD in diffusers layout")
    parser.add_argument(
        "--mimicmotion",
        metavar="FILE_OR_HUB_ID",
        help="a file, owner/name or owner/name/file on the hub, or 'none' for SVD alone",
    )
    parser.add_argument("--to-torch", metavar="DIR", help="a checkpoint of ours to write in the official layout")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder to make")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as in the source")
    parser.add_argument(
        "--window-size", type=int, metavar="N", help="frames per window; default: known from the source"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    args = parser.parse_args(argv)
    if args.to_torch:
        if args.svd or args.mimicmotion or args.window_size:
            parser.error("--to-torch goes with --output, --dtype and --overwrite only")
        export_torch(args.to_torch, args.output, dtype=args.dtype, overwrite=args.overwrite)
    else:
        if not (args.svd and args.mimicmotion):
            parser.error("give --svd and --mimicmotion (which may be 'none'), or --to-torch")
        convert(
            args.svd,
            args.mimicmotion,
            args.output,
            dtype=args.dtype,
            window_size=args.window_size,
            overwrite=args.overwrite,
        )
    print(f"wrote {args.output}")
