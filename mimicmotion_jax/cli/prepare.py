"""Prepare training data: a folder of videos, or a synthetic world, in; a dataset of frames and keypoints out."""

import argparse
import logging
import warnings

from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.config import config_dataclass, load_config, values_of
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import SyntheticWorld, draw_scenes, write_test_set

EXAMPLES = """examples:
  mimicmotion prepare --videos dances --output data/dances
  mimicmotion prepare --videos dances --keypoints poses --output data/dances max_seconds=20 crf=16
  mimicmotion prepare --videos dances --output data/dances encode=checkpoints/svd size=[1024,576]
  mimicmotion prepare --videos gs://bucket/dances --output gs://bucket/data \\
      --beam-options runner=DataflowRunner,project=my-project,region=us-central1,temp_location=gs://bucket/tmp
  mimicmotion prepare --synthetic 200 --output data/world world.width=96 world.height=128
  mimicmotion prepare --synthetic 20 --test-set --output data/world-test world.width=96 world.height=128

Run the same command again to go on after an interruption, or with more videos in the folder: finished videos are kept.
Keypoints of dances/a.mp4 are read from poses/a.npz, .json, .npy or .pkl, or a folder poses/a of OpenPose's files, or
from the same beside the video; without any they are detected. OUTPUT/summary.json lists the skipped videos with the
reasons; OUTPUT/prepare.log has the tracebacks of unexpected errors. OUTPUT/.work only serves reruns and may be deleted.

--synthetic renders drawn people whose keypoints are known, with the errors that a pose detector would make in them.
--test-set writes these scenes as a folder of sequences for `mimicmotion evaluate`, with people, motions and backgrounds
that never occur in training; the only options it takes are those of the world.
"""


@config_dataclass
class ScriptConfig(PrepareConfig):
    """Options of the preparation and of the synthetic world."""

    world: WorldConfig = WorldConfig()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__ or "", EXAMPLES, ScriptConfig, meanings="configs/prepare.yaml")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", metavar="DIR", help="folder of videos, also in folders below; local or gs://")
    source.add_argument("--synthetic", type=int, metavar="N", help="N rendered scenes instead; see world.* below")
    parser.add_argument("--keypoints", metavar="DIR", help="folder of existing keypoints, named like the videos")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the dataset; local or gs://")
    parser.add_argument("--test-set", action="store_true", help="write test sequences instead of a dataset")
    parser.add_argument("--config", type=path_or_url, metavar="FILE", help="YAML with any of the options below")
    parser.add_argument("--beam-options", default="", metavar="key=value,…", help="for another Apache Beam runner")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Prepare a dataset or a test set and print a summary."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.CRITICAL)  # Beam logs every error of a worker; we report it once
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")  # on Python's age, at import
    options = load_config(ScriptConfig, args.config, args.options)
    config, world = PrepareConfig(**values_of(PrepareConfig, options)), options.world
    if args.synthetic is None and (args.test_set or world != WorldConfig()):
        raise InputError("--test-set and world.* are for rendered scenes; give --synthetic N instead of --videos.")
    if args.synthetic is not None and args.keypoints is not None:
        raise InputError("rendered scenes come with their keypoints; leave --keypoints out.")
    if args.test_set and (args.beam_options or config != PrepareConfig()):
        raise InputError("a test set takes no options but world.*; leave the others and --beam-options out.")

    if args.test_set and args.synthetic is not None:
        names = write_test_set(draw_scenes(world, args.synthetic, "test"), args.output)
        print(f"{args.output} holds {len(names)} test sequences")
        return 0
    if args.synthetic is None:
        source = VideoFolder(args.videos, args.keypoints, config.tolerate_truncation)
    else:
        source = SyntheticWorld(args.synthetic, world)
    beam_options = [option for option in args.beam_options.split(",") if option]
    print(prepare(source, args.output, config, beam_options))
    return 0
