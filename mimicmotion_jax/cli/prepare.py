"""Prepare training data: a folder of videos, or a synthetic world, in; a dataset of frames and keypoints out."""

import argparse
import dataclasses
import logging

from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.config import load_config, to_dict
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.synthetic.config import WorldConfig
from mimicmotion_jax.synthetic.source import SyntheticWorld, draw_scenes, write_test_set

EXAMPLES = """examples:
  python prepare_data.py --videos dances --output data/dances
  python prepare_data.py --videos dances --keypoints poses --output data/dances max_seconds=20 crf=16
  python prepare_data.py --videos dances --output data/dances encode=checkpoints/svd size=[1024,576]
  python prepare_data.py --videos gs://bucket/dances --output gs://bucket/data \\
      --beam-options runner=DataflowRunner,project=my-project,region=us-central1,temp_location=gs://bucket/tmp
  python prepare_data.py --synthetic 200 --output data/world world.width=96 world.height=128
  python prepare_data.py --synthetic 20 --test-set --output data/world-test world.width=96 world.height=128

Run it again to go on after an interruption, or with more videos in the folder: what is done is not done again.
Keypoints of dances/a.mp4 are detected unless there are poses/a.npz, poses/a.json or a folder poses/a of OpenPose's
files, or the same beside the video. What was skipped, and why, is in OUTPUT/summary.json. OUTPUT/.work serves reruns
only and may be deleted.

--synthetic renders drawn people whose keypoints are known, with the errors that a pose detector would make in them.
--test-set makes of them a folder of sequences that evaluate.py reads, with people, motions and backgrounds that never
occur in training; of the options it takes those of the world only.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__, EXAMPLES, PrepareConfig, meanings="configs/prepare.yaml")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", metavar="DIR", help="videos, also in folders below; local or gs://")
    source.add_argument("--synthetic", type=int, metavar="N", help="N rendered scenes instead, see world.* below")
    parser.add_argument("--keypoints", metavar="DIR", help="keypoints that exist already, by the videos' names")
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset; local or gs://")
    parser.add_argument("--test-set", action="store_true", help="of the rendered scenes, instead of a dataset")
    parser.add_argument("--config", type=path_or_url, metavar="FILE", help="YAML with any of the options below")
    parser.add_argument("--beam-options", default="", metavar="key=value,…", help="for another Apache Beam runner")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Prepare and say what came of it."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.ERROR)
    config = load_config(PrepareConfig, args.config, args.options)
    if args.synthetic is None and (args.test_set or config.world != WorldConfig()):
        raise InputError("--test-set and world.* are for rendered scenes; give --synthetic N instead of --videos.")
    if args.synthetic is not None and args.keypoints is not None:
        raise InputError("rendered scenes come with their keypoints; leave --keypoints out.")
    if args.test_set and (args.beam_options or dataclasses.replace(config, world=WorldConfig()) != PrepareConfig()):
        raise InputError("a test set takes no options but world.*; leave the others and --beam-options out.")

    if args.synthetic is None:
        source = VideoFolder(args.videos, args.keypoints)
    else:
        if args.test_set:
            names = write_test_set(draw_scenes(config.world, args.synthetic, "test"), args.output)
            print(f"{args.output} holds {len(names)} test sequences")
            return 0
        source = SyntheticWorld(args.synthetic, **to_dict(config.world))
    beam_options = [option for option in args.beam_options.split(",") if option]
    summary = prepare(source, args.output, config, beam_options)
    print(summary)
    return 0
