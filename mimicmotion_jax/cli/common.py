"""Command lines of switches and `key=value` options, and messages on stderr; shared by all subcommands."""

import argparse
import logging
import sys
from pathlib import Path

from etils import epath
from tqdm import tqdm

from mimicmotion_jax.config import describe
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import TRACEBACK_OPTION, InputError


def script_parser(
    description: str | None, examples: str, options: type, meanings: str | None = None
) -> argparse.ArgumentParser:
    """Return a parser that collects `key=value` arguments in `options`, for use with `parse_intermixed_args`.

    Args:
        description: First lines of `--help`.
        examples: Printed below the switches.
        options: Configuration class whose keys are listed below the examples, with defaults and meanings.
        meanings: YAML file with examples of these options.
    """
    more = f" (see also {meanings})" if meanings else ""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"{examples}\noptions, their defaults and meanings{more}:\n{describe(options)}",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="key=value", help="see below")
    add_traceback_option(parser)
    return parser


def add_traceback_option(parser: argparse.ArgumentParser) -> None:
    """Add `--traceback`, which `run_script` acts on."""
    parser.add_argument(TRACEBACK_OPTION, action="store_true", help="show the traceback of an error, for bug reports")


def path_or_url(text: str) -> Path | epath.Path:
    """Convert an argument to a local path, or to an `epath.Path` if it is a URL such as gs://bucket/folder.

    `pathlib.Path` would turn that URL into the local path gs:/bucket/folder.

    Raises:
        argparse.ArgumentTypeError: Unknown storage, or a package for it that is not installed.
    """
    if "://" not in text:
        return Path(text)
    try:
        return absolute_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _BarAwareHandler(logging.Handler):
    """Log handler that prints to stderr above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def log_to_stderr(libraries: int) -> None:
    """Print our log messages without a prefix, and those of libraries from the level `libraries` on.

    jax's warnings about accelerators that it cannot use are always printed: work on a CPU must not go unnoticed.
    """
    logging.basicConfig(level=libraries, format="%(message)s", handlers=[_BarAwareHandler()], force=True)
    logging.getLogger("mimicmotion_jax").setLevel(logging.INFO)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
