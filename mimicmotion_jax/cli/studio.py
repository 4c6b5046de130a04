"""Serve a page on which people give a picture and a motion, see what the model will be given, generate and compare."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from mimicmotion_jax.app.serve import AUTH_VARIABLE, MAX_FRAMES, check_address, check_installed, read_auth, serve
from mimicmotion_jax.checkpoint import is_packaged, resolve
from mimicmotion_jax.cli.common import add_traceback_option, log_to_stderr, path_or_url
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache, user_cache
from mimicmotion_jax.runtime.cpu_devices import split_cpu
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.sharding import describe_mesh
from mimicmotion_jax.synthetic.source import detect
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.image import target_size

if TYPE_CHECKING:
    from mimicmotion_jax.app.studio import Example

logger = logging.getLogger(__name__)

EXAMPLES = f"""examples:
  mimicmotion studio                                        the small model that comes with the package
  mimicmotion studio --checkpoint checkpoints/mimicmotion --open
  {AUTH_VARIABLE}=me:secret mimicmotion studio --checkpoint DIR --host 0.0.0.0 --port 8000

Others on the network reach the page only with --host; give them a password, by {AUTH_VARIABLE}=USER:PASSWORD
or by a file of such lines. Uploads and results lie in one temporary folder, which is removed at the end. Programs use
the same page through gradio_client: see docs/studio.md.
"""
_SMALL = "This is the small model that comes with the package: it knows drawn people only, so begin with an example."
_FPS, _NUM_FRAMES = 15.0, 30
# Odd numbers are those of the test split: nobody and nothing here occurs in training.
_SCENES = (
    (
        "Drawn person, waving",
        {"character": 21, "motion": 3, "background": 21, "framing": "half"},
        {"character": 7, "motion": 7, "background": 9, "framing": "half"},
    ),
    (
        "Drawn person, whole body",
        {"character": 33, "motion": 5, "background": 15, "framing": "full"},
        {"character": 11, "motion": 13, "background": 3, "framing": "full"},
    ),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=path_or_url, metavar="DIR", help="converted or trained weights; default: the small model")
    add("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1, this machine alone")
    add("--port", type=int, metavar="N", help="default: the first free one from 7860 on")
    add("--auth", type=Path, metavar="FILE", help=f"file of USER:PASSWORD lines; default: {AUTH_VARIABLE}, else none")
    add("--max-upload", type=int, default=500, metavar="MB", help="largest file that may be uploaded; default 500")
    longest = f"longest video that is made, in frames; default {MAX_FRAMES}"
    add("--max-frames", type=int, default=MAX_FRAMES, metavar="N", help=longest)
    add("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16; on a CPU float32")
    add("--devices", type=int, metavar="N", help="number of devices; default: all, and one on a CPU")
    add("--open", action="store_true", help="open the page in the browser")
    add_traceback_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    check_installed()
    check_address(args.host, args.port)
    if args.max_upload < 1:
        raise InputError(f"--max-upload must be at least 1 (MB), not {args.max_upload}.")
    if args.max_frames < 1:
        raise InputError(f"--max-frames must be at least 1, not {args.max_frames}.")
    auth = read_auth(args.auth)
    if auth is None and args.host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("whoever reaches %s can use this page: there is no password (--auth)", args.host)
    checkpoint = WEIGHTS if args.checkpoint is None else resolve(args.checkpoint)
    enable_compilation_cache()
    split_cpu(args.devices or 1)
    pipeline = MimicMotionPipeline.from_pretrained(checkpoint, args.dtype, num_devices=args.devices, progress=True)
    logger.info("generating on %s", describe_mesh(pipeline.mesh))
    serve(
        pipeline,
        make_examples=lambda folder: write_examples(folder, pipeline),
        about=_SMALL if is_packaged(checkpoint) else "",
        host=args.host,
        port=args.port,
        auth=auth,
        max_upload_mb=args.max_upload,
        max_frames=args.max_frames,
        timings=user_cache() / "studio_timings.json",
        open_browser=args.open,
    )
    return 0


def write_examples(folder: Path, pipeline: MimicMotionPipeline) -> "list[Example]":
    """Render examples from the synthetic world at the shape that the model makes, up to 512 pixels high.

    Args:
        folder: where to.
        pipeline: its defaults give the size.
    """
    from mimicmotion_jax.app.studio import Example

    size = (pipeline.defaults.get("width", 576), pipeline.defaults.get("height", 1024))
    height, width = target_size(size[1], size[0], 576, size, pipeline.config.size_multiple)
    scale = min(1.0, 512 / max(height, width))
    width, height = round(width * scale), round(height * scale)
    examples = []
    for number, (name, look, move) in enumerate(_SCENES):
        place = folder / "examples" / str(number)
        place.mkdir(parents=True)
        files = Example(name, place / "person.png", place / "dance.npz", place / "person.npz")
        shown = render(Scene(**look, width=width, height=height, num_frames=1, fps=_FPS))
        driver = Scene(**move, width=width, height=height, num_frames=_NUM_FRAMES, fps=_FPS)
        Image.fromarray(shown.frames[0]).save(files.image)
        save_keypoints(shown.keypoints, files.image_pose)
        save_keypoints(detect(driver, render(driver).keypoints), files.keypoints)
        examples.append(files)
    return examples
