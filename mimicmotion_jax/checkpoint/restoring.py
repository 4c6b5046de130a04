"""Orbax: damaged files end in one sentence, and what a failure leaves over is not printed."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from mimicmotion_jax.runtime.errors import InputError, root_cause
from mimicmotion_jax.runtime.out_of_memory import is_out_of_memory

# When one of orbax's reads or writes fails, the others fail or are cut off too, and Python prints their errors, which
# nobody asks for, at any later time.
_LEFT_OVER = ("Encountered error while reading array index", "Event loop is closed")
_STORAGE_ERRORS = (OSError, ValueError, KeyError, RuntimeError)


@contextlib.contextmanager
def explain_damage(sentence: Callable[[str], str]) -> Iterator[None]:
    """Turn the errors of damaged files inside the block into one sentence; others, as of memory, pass as they are.

    Args:
        sentence: the message, given the reason.

    Raises:
        InputError: files that are missing, damaged, or not those of the arrays asked for.
    """
    ignore_left_overs()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Of arrays that it cannot decode orbax says so in an `Exception` of no subclass.
        if not (type(error) is Exception or isinstance(error, _STORAGE_ERRORS)) or is_out_of_memory(error):
            raise
        raise InputError(sentence(root_cause(error))) from error


class _Filter:
    """A `sys.unraisablehook` that passes on to the one before it all but the errors of left-over reads and writes."""

    def __init__(self, before: Callable[[Any], None]):
        self.before = before

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if not any(words in str(unraisable.exc_value) for words in _LEFT_OVER):
            self.before(unraisable)


def ignore_left_overs() -> None:
    """Print no errors of reads and writes that end after the one that failed, from now on."""
    if not isinstance(sys.unraisablehook, _Filter):
        sys.unraisablehook = _Filter(sys.unraisablehook)
