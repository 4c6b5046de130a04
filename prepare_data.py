#!/usr/bin/env python3
"""Prepare training data: a folder of videos in, a dataset of frames and keypoints out."""

import argparse
import logging
import sys

EXAMPLES = """examples:
  python prepare_data.py --videos dances --output data/dances
  python prepare_data.py --videos dances --keypoints poses --output data/dances max_seconds=20 crf=16
  python prepare_data.py --videos dances --output data/dances encode=checkpoints/svd size=[1024,576]
  python prepare_data.py --videos gs://bucket/dances --output gs://bucket/data \\
      --beam-options runner=DataflowRunner,project=my-project,region=us-central1,temp_location=gs://bucket/tmp

Run it again to go on after an interruption, or with more videos in the folder: what is done is not done again.
Keypoints of dances/a.mp4 are detected unless there are poses/a.npz, poses/a.json or a folder poses/a of OpenPose's
files, or the same beside the video. What was skipped, and why, is in OUTPUT/summary.json. OUTPUT/.work serves reruns
only and may be deleted.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--videos", required=True, metavar="DIR", help="videos, also in folders below; local or gs://")
    parser.add_argument("--keypoints", metavar="DIR", help="keypoints that exist already, by the videos' names")
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset; local or gs://")
    parser.add_argument("--config", metavar="FILE", help="YAML with any of the options below")
    parser.add_argument("--beam-options", default="", metavar="key=value,…", help="for another Apache Beam runner")
    parser.add_argument("options", nargs="*", metavar="key=value", help="see below")
    if "--help" in sys.argv or "-h" in sys.argv:
        from mimicmotion_jax.config import describe
        from mimicmotion_jax.data.prepare import PrepareConfig

        parser.epilog += "\noptions and their defaults:\n" + describe(PrepareConfig)
    return parser.parse_intermixed_args(argv)


def main() -> int:
    """Prepare and say what came of it."""
    args = parse_args()

    from mimicmotion_jax.config import load_config
    from mimicmotion_jax.data.prepare import PrepareConfig, prepare
    from mimicmotion_jax.data.sources import VideoFolder

    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("mimicmotion_jax").setLevel(logging.INFO)
    config = load_config(PrepareConfig, args.config, args.options)
    beam_options = [option for option in args.beam_options.split(",") if option]
    summary = prepare(VideoFolder(args.videos, args.keypoints), args.output, config, beam_options)
    print(summary)
    return 0


if __name__ == "__main__":
    from mimicmotion_jax.errors import run_script

    run_script(main)()
