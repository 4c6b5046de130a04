"""Errors meant for the person at the keyboard: one sentence, no traceback, a non-zero exit status."""

import functools
import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave is wrong. The message is one sentence: what is wrong and what to do about it."""


def root_cause(error: BaseException) -> str:
    """What the first of the errors that led to this one says: its first line, at most 200 characters, no full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def run_script(main: Callable[[], int | None]) -> Callable[[], None]:
    """Wrap a script's `main`: `InputError` and full disks end in one line on stderr, bugs keep their traceback.

    Exit status: what `main` returns (None is 0), 2 for an `InputError` or `OSError`, 130 after Ctrl-C.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            status = main() or 0
        except InputError as error:
            status = _report(str(error))
        except BrokenPipeError:
            # The reader of our output (head, less) went away; keep the interpreter from complaining on exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 141
        except OSError as error:
            # Paths, permissions, full disks: the operating system's own words, with the file it was about.
            name = f" ({error.filename})" if error.filename else ""
            status = _report(f"{error.strerror or error}{name}.")
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            status = 130
        sys.exit(status)

    return wrapped


def _report(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
