"""Ask people which of two videos is better (the paper's appendix C): make the study, serve it, report preferences."""

import argparse
import logging
import sys
from pathlib import Path

from mimicmotion_jax.app.study_server import PORT, serve_study
from mimicmotion_jax.cli.common import add_traceback_option, log_to_stderr
from mimicmotion_jax.evaluation.study.build import NUM_PARTICIPANTS, QUESTION, build_study
from mimicmotion_jax.evaluation.study.files import KEY
from mimicmotion_jax.evaluation.study.report import format_table, report_study
from mimicmotion_jax.inference.picture import local_path
from mimicmotion_jax.runtime.errors import InputError

EXAMPLES = """examples:
  mimicmotion study --videos ours=outputs/ours magicpose=outputs/magicpose --output studies/first
  mimicmotion study --serve studies/first --host 0.0.0.0          answers are saved in studies/first/answers
  mimicmotion study --report studies/first                        preferences, from the answers there
  mimicmotion study --report studies/first ~/Downloads/*.json     answers that participants sent

Each method is a folder with one video (or folder of frames) per clip, under the same names for all methods; or a single
video. The first method is compared with each of the others. NAME= may be left out: then it is the folder's name.

DIR/page is for the participants: zip and send it, put it on any web server, or --serve it. It works without a network,
and nothing in it names a method. DIR/key.json tells which clip is whose; keep it. Participants who open the page from a
file download their answers and send them to you. ?participant=7 behind the page's address gives a participant a code.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--videos", nargs="+", metavar="[NAME=]PATH", help="make a study of these methods' videos")
    mode.add_argument("--serve", metavar="DIR", help="serve a study until Ctrl-C; needs the extra studio")
    mode.add_argument("--report", nargs="+", metavar="PATH", help="a study, and files or folders of answers; its own")
    add = parser.add_argument
    add("--output", metavar="DIR", help="with --videos: new folder for the study")
    add("--pairs", type=int, metavar="N", help="pairs of each baseline for a participant; default: every clip")
    participants = f"participants to draw pairs, order and sides for; default {NUM_PARTICIPANTS}"
    add("--participants", type=int, default=NUM_PARTICIPANTS, metavar="N", help=participants)
    add("--square", action="store_true", help="show the central squares, as the paper does; for different shapes")
    add("--question", default=QUESTION, metavar="TEXT", help="text above the videos; default: the paper's criteria")
    add("--fps", type=float, metavar="X", help="frame rate of folders of frames; default 24")
    add("--seed", type=int, default=0, metavar="N", help="of pairs, order and sides; default 0")
    add("--host", default="127.0.0.1", help="with --serve: address to listen on; default 127.0.0.1, this machine alone")
    add("--port", type=int, default=PORT, metavar="N", help=f"with --serve: default {PORT}")
    add("--open", action="store_true", help="with --serve: open the page in the browser")
    add_traceback_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make, serve or report a study; return 1 if answers were left out of a report."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.WARNING)
    if args.serve is not None:
        serve_study(_local(args.serve), host=args.host, port=args.port, open_browser=args.open)
        return 0
    if args.report is not None:
        return _report([_local(path) for path in args.report])
    if args.output is None:
        raise InputError("say where the study goes: --output DIR.")
    if args.seed < 0:
        raise InputError(f"--seed must be 0 or more, not {args.seed}.")
    output = _local(args.output)
    study = build_study(
        _methods(args.videos),
        output,
        question=args.question,
        num_pairs=args.pairs,
        num_participants=args.participants,
        square=args.square,
        fps=args.fps,
        seed=args.seed,
    )
    print(f"{output / 'page'}: pairs for each participant: {len(study.orders[0])}; send it, or --serve {output}")
    print(f"{output / KEY}: which clip is whose; keep it to yourself")
    return 0


def _methods(given: list[str]) -> dict[str, Path]:
    methods: dict[str, Path] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if equals and not Path(text).exists():
            path = _local(place)
        else:
            path = _local(text)
            name = path.resolve().stem if path.is_file() else path.resolve().name
        if not name:
            raise InputError(f"{text} has no name; write NAME=FOLDER.")
        if name in methods:
            raise InputError(f"two methods are called {name}; write NAME=FOLDER to tell them apart.")
        methods[name] = path
    return methods


def _report(places: list[Path]) -> int:
    folders = [place for place in places if (place / KEY).is_file()]
    if len(folders) != 1:
        what = "none" if not folders else "several"
        raise InputError(f"give the folder of one study (with its {KEY}), and answers; this is {what}.")
    report, notes = report_study(folders[0], [place for place in places if place not in folders])
    for sentence in notes:
        print(sentence, file=sys.stderr)
    print(format_table(report))
    print(f"{report['participants']} participants; wrote {folders[0] / 'report.html'} and report.json")
    return 1 if report["left_out"] else 0


def _local(path: str) -> Path:
    return local_path(path).expanduser()
