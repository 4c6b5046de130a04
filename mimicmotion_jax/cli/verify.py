"""Look whether files were made by this software: content credentials, invisible watermark, settings in the comment."""

import argparse
import json
import logging
import sys

from mimicmotion_jax.cli.common import add_traceback_option, log_to_stderr, path_or_url
from mimicmotion_jax.inference.picture import local_path
from mimicmotion_jax.provenance.verify import verify
from mimicmotion_jax.runtime.errors import InputError

EXAMPLES = """examples:
  mimicmotion verify person.mp4
  mimicmotion verify --json downloads/*.mp4

FILE is a video, a GIF, a picture, a folder of PNGs, or keypoints (.npz). Credentials and settings are lost when a
platform rewrites the file; the watermark stays through compression, scaling and cropping.

exit status: 0 each file has a sign of this software, 1 at least one has none, 2 a file that cannot be read.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=path_or_url, metavar="FILE", help="file or folder to look at")
    parser.add_argument("--json", action="store_true", help="print a JSON list with an object for each file")
    add_traceback_option(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Print what was found in each file; return 1 if one has no sign of this software, 2 if one cannot be read."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    findings, failed = [], False
    for path in args.files:
        try:
            findings.append(verify(local_path(path)))
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        if not args.json:
            print(findings[-1])
    if args.json:
        print(json.dumps([one.to_dict() for one in findings], indent=2))
    return 2 if failed else int(not all(one.found for one in findings))
