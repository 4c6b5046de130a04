"""Keep a C++ library's notes, which it writes straight to file descriptor 2, off the terminal; lose no other line."""

import contextlib
import os
import re
import select
import threading
from collections.abc import Iterator

_PATIENCE = 0.1  # seconds until an unfinished line, such as a progress bar's, is shown
_NOTE = re.compile(rb"INFO|WARNING|[IW]\d")  # starts of lines that may match, whose rest a busy machine delays
_NOTE_PATIENCE = 5.0  # seconds for the rest of those

_lock = threading.Lock()
_users = 0
_stop = contextlib.ExitStack()


@contextlib.contextmanager
def without_lines(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Drop the lines of this process's stderr that match `pattern` from their start, while the block runs.

    Blocks of several threads may overlap if their pattern is the same: the first one to begin installs the filter and
    the last one to end removes it.
    """
    global _users
    with _lock:
        if not _users:
            _install(pattern)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _stop.close()


def _install(pattern: re.Pattern[bytes]) -> None:
    """Replace stderr by a pipe whose other end a thread copies to the real one; `_stop.close()` undoes it."""
    terminal = os.dup(2)
    output, own = os.pipe()
    os.dup2(own, 2)
    os.close(own)
    copying = threading.Thread(target=_copy, args=(output, terminal, pattern), daemon=True)
    copying.start()
    # A program that was started meanwhile may keep the pipe open; its lines are still copied.
    _stop.callback(copying.join, timeout=1)
    _stop.callback(os.dup2, terminal, 2)


def _copy(source: int, destination: int, pattern: re.Pattern[bytes]) -> None:
    started = b""  # a line whose end has not come; C++ writes some in pieces
    while True:
        patience = _NOTE_PATIENCE if _NOTE.match(started) else _PATIENCE
        waited_enough = started and not select.select([source], [], [], patience)[0]
        block = b"" if waited_enough else os.read(source, 2**16)
        *lines, started = (started + block).splitlines(keepends=True) or [b""]
        if not block or started.endswith((b"\n", b"\r")):
            lines, started = [*lines, started], b""
        kept = b"".join(line for line in lines if not pattern.match(line))
        while kept:
            kept = kept[os.write(destination, kept) :]
        if not block and not waited_enough:
            os.close(source)
            os.close(destination)
            return
