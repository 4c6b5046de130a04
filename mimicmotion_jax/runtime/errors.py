"""Errors meant for the person at the keyboard: one sentence, no traceback, a non-zero exit status."""

import errno
import functools
import gc
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

TRACEBACK_OPTION = "--traceback"

_MAKE_ROOM = "free some space or choose another output"
_OTHER_PLACE = "choose another place"
# Failures of the user's disks and paths, with the advice that follows; all others are bugs.
_ADVICE = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: _MAKE_ROOM,
    errno.EROFS: _OTHER_PLACE,
    errno.EIO: "check the disk",
}
_PATH_ADVICE = {
    errno.EACCES: "check its permissions or " + _OTHER_PLACE,
    errno.EPERM: "check its permissions or " + _OTHER_PLACE,
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.EEXIST: _OTHER_PLACE,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check its symbolic links",
}


class InputError(ValueError):
    """Something the user gave is wrong. The message is one sentence: what is wrong and what to do about it."""


def root_cause(error: BaseException) -> str:
    """First line of the error that led to this one, at most 200 characters, without a full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def is_disk_error(error: BaseException) -> bool:
    """Return True if an error reports a full, read-only or failing disk."""
    return _errno(error) in _ADVICE


def explain_disk_error(error: Exception) -> str | None:
    """Describe a failure of the user's disk or path in one sentence; None if it is neither, hence a bug."""
    number, path = _errno(error), getattr(error, "filename", None)
    advice = _ADVICE.get(number) or (_PATH_ADVICE.get(number) if path else None)
    if advice is None:
        return None
    place = f" ({os.fsdecode(path)})" if isinstance(path, str | bytes) else ""
    return f"{os.strerror(number)}{place}; {advice}."


def _errno(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    # The library that writes arrays for orbax (tensorstore) raises ValueErrors.
    match = re.search(r"os_error_code='(\d+)'", str(error)) if isinstance(error, ValueError) else None
    return int(match[1]) if match else 0


def run_script(main: Callable[[], int | None]) -> Callable[[], None]:
    """Wrap a script's `main`: mistakes of the user and full disks end in one line on stderr, bugs with a traceback.

    With `--traceback` on the command line the traceback of the former is shown too.

    Exit status: what `main` returns (None is 0), 2 for an `InputError` or a failure of the user's disk or path, 130
    after Ctrl-C.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
            gc.callbacks.insert(0, _note_collection)
        try:
            status = main() or 0
        except InputError as error:
            status = _report(str(error))
        except BrokenPipeError:
            # The reader of our output (head, less) went away; keep the interpreter from complaining on exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 141
        except (OSError, ValueError) as error:
            message = explain_disk_error(error)
            if message is None:
                raise
            status = _report(message)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            status = 130
        sys.exit(status)

    return wrapped


_is_collecting = threading.Event()


def _note_collection(phase: str, info: dict[str, int]) -> None:
    """Callback of the garbage collector."""
    (_is_collecting.set if phase == "start" else _is_collecting.clear)()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; a moment later if Python collects garbage, where it would be printed and forgotten.

    Finalizers and callbacks of the collector run there; jax has such a callback.
    """
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    codes = set()
    while frame is not None:
        codes.add(frame.f_code)
        frame = frame.f_back
    if not _is_collecting.is_set() and not codes & callbacks:
        raise KeyboardInterrupt
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def _report(message: str) -> int:
    if TRACEBACK_OPTION in sys.argv:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return 2
