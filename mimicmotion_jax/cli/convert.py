"""Convert the official PyTorch checkpoints of SVD and MimicMotion to ours, and ours back.

The way back (--to-torch) writes every tensor bit for bit as it was before the conversion, unless --dtype casts it. The
UNet it writes, in MimicMotion.pth and in svd/unet, is MimicMotion's: SVD's own UNet is not part of our checkpoints.
"""

import argparse
import logging

import jax

from mimicmotion_jax.cli.common import add_traceback_option, log_to_stderr
from mimicmotion_jax.convert import convert, export_torch

EXAMPLES = """examples:
  mimicmotion convert --svd stabilityai/stable-video-diffusion-img2vid-xt-1-1 \\
      --mimicmotion tencent/MimicMotion --output checkpoints/mimicmotion
  mimicmotion convert --svd weights/svd --mimicmotion weights/MimicMotion_1-1.pth --output checkpoints/mimicmotion
  mimicmotion convert --svd weights/svd --mimicmotion weights/MimicMotionMergedUnet_1-1-fp16.safetensors \\
      --pose-net weights/MimicMotion_pose_net.safetensors --output checkpoints/mimicmotion      # ComfyUI's two files
  mimicmotion convert --svd weights/svd --mimicmotion none --output checkpoints/svd     # where training starts
  mimicmotion convert --to-torch checkpoints/mimicmotion --output weights/exported      # back to PyTorch
"""


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, convert, and print the output folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--svd", metavar="DIR_OR_HUB_ID", help="SVD in diffusers layout")
    parser.add_argument(
        "--mimicmotion",
        metavar="FILE_OR_HUB_ID",
        help="a file, owner/name or owner/name/file on the hub, or 'none' for SVD alone",
    )
    parser.add_argument(
        "--pose-net",
        metavar="FILE_OR_HUB_ID",
        help="second file, where --mimicmotion is a UNet alone (ComfyUI's MimicMotionMergedUnet and "
        "MimicMotion_pose_net)",
    )
    parser.add_argument("--to-torch", metavar="DIR", help="a checkpoint of ours to write in the official layout")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder to create")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as in the source")
    parser.add_argument(
        "--window-size",
        type=int,
        metavar="N",
        help="frames that the model denoises together: 16 for MimicMotion 1, 72 for 1.1; by default it is taken from "
        "the source, and printed; required if the source does not say",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")  # conversion computes nothing and must not take an accelerator's memory
    log_to_stderr(libraries=logging.CRITICAL)
    if args.to_torch:
        if args.svd or args.mimicmotion or args.pose_net or args.window_size is not None:
            parser.error("--to-torch goes with --output, --dtype and --overwrite only")
        export_torch(args.to_torch, args.output, dtype=args.dtype, overwrite=args.overwrite)
    else:
        if not (args.svd and args.mimicmotion):
            parser.error("give --svd and --mimicmotion (which may be 'none'), or --to-torch")
        convert(
            args.svd,
            args.mimicmotion,
            args.output,
            pose_net=args.pose_net,
            dtype=args.dtype,
            window_size=args.window_size,
            overwrite=args.overwrite,
        )
    print(f"wrote {args.output}")
