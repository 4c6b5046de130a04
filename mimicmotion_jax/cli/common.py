"""What the scripts share: a command line of switches and `key=value` options, and messages on stderr."""

import argparse
import logging
import sys

from tqdm import tqdm

from mimicmotion_jax.config import describe


def script_parser(
    description: str, examples: str, options: type, meanings: str | None = None
) -> argparse.ArgumentParser:
    """A parser that collects `key=value` arguments in `options`, to be used with `parse_intermixed_args`.

    Args:
        description: of the script.
        examples: shown below the switches in `--help`.
        options: configuration class whose keys and defaults are listed there too.
        meanings: file that explains them.
    """
    explained = f" (meanings: {meanings})" if meanings else ""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"{examples}\noptions and their defaults{explained}:\n{describe(options)}",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="key=value", help="see below")
    return parser


class _AboveBars(logging.Handler):
    """Messages on stderr that do not run into progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def log_to_stderr(libraries: int) -> None:
    """Show our messages as they are, and those of libraries from the level `libraries` on.

    Jax's warnings about accelerators that it cannot use are shown in any case: else hours go by on a CPU.
    """
    logging.basicConfig(level=libraries, format="%(message)s", handlers=[_AboveBars()], force=True)
    logging.getLogger("mimicmotion_jax").setLevel(logging.INFO)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
