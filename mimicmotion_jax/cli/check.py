"""Check a reference image and a motion before minutes are spent: one HTML page with what the model will be given."""

import argparse
import logging
import sys

from mimicmotion_jax.app.preflight import MAX_FRAMES, Checker
from mimicmotion_jax.app.preflight_page import preflight_page
from mimicmotion_jax.checkpoint import read_config, resolve
from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.inference.options import PipelineOptions, load_options
from mimicmotion_jax.pages.render import GENERATOR
from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import InputError

EXAMPLES = """examples:
  mimicmotion check --image person.jpg --motion dance.mp4 --output check.html
  mimicmotion check --image person.jpg --motion dance.mp4 --output check.html align=limb person=1 start=12
  mimicmotion check --checkpoint DIR --image person.jpg --motion dance.npz --output check.html

The page shows the skeleton over the picture for each alignment, what is seen of the body over time, hands that are
lost, people, cuts, the crop, length and memory, and everything that was assumed. It needs no weights, no other file and
no network. A checkpoint gives the size of the video and the windows; without one they are the full model's.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__, EXAMPLES, PipelineOptions, meanings="configs/sample.yaml")
    add = parser.add_argument
    add("--image", type=path_or_url, required=True, help="reference image")
    add("--motion", type=path_or_url, required=True, metavar="PATH", help="driving video or keypoints")
    add("--output", type=path_or_url, required=True, metavar="FILE", help="the page, .html")
    add("--image-pose", type=path_or_url, metavar="FILE", help="keypoints of the person in it")
    add("--checkpoint", type=path_or_url, metavar="DIR", help="converted or trained weights; they are not loaded")
    add("--config", type=path_or_url, metavar="FILE", help="YAML with any of the options below")
    frames = f"frames of a video that are looked at, evenly spread; default {MAX_FRAMES}, 0 looks at all"
    add("--frames", type=int, default=MAX_FRAMES, metavar="N", help=frames)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the page and print the likely problems."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the page is HTML; give --output a name that ends in .html, not {args.output.name}.")
    if args.output.exists() and GENERATOR not in args.output.read_text(errors="replace")[:1000]:
        raise InputError(f"{args.output} is not a page that mimicmotion wrote; choose another output.")
    if args.frames < 0:
        raise InputError(f"--frames must be 0 (all) or more, not {args.frames}.")
    checkpoint = None if args.checkpoint is None else resolve(args.checkpoint)
    options = load_options(checkpoint, args.config, args.options, PipelineOptions)
    model = None if checkpoint is None else read_config(checkpoint)
    preflight = Checker(model, args.frames or sys.maxsize)(args.image, args.motion, options, args.image_pose)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_file(args.output, preflight_page(preflight).encode())
    for problem in preflight.problems:
        print(f"look out: {problem}")
    print(f"wrote {args.output}")
    return 0
