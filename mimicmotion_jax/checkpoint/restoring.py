"""Restoring with orbax: damaged files end in one sentence, and nothing else of orbax's is shown."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from mimicmotion_jax.runtime.errors import InputError, root_cause
from mimicmotion_jax.runtime.out_of_memory import is_out_of_memory

# The other reads of the same restore, which fail likewise or are cut off, are never asked for their results.
_LEFT_OVER = ("Encountered error while reading array index", "Event loop is closed")
_STORAGE_ERRORS = (OSError, ValueError, KeyError, RuntimeError)


@contextlib.contextmanager
def explain_damage(sentence: Callable[[str], str]) -> Iterator[None]:
    """Around a restore; errors that do not tell of the files, such as a lack of memory, pass as they are.

    Args:
        sentence: what to say, given the reason.

    Raises:
        InputError: files that are missing, damaged, or not those of the arrays asked for.
    """
    with _without_left_overs():
        try:
            yield
        except Exception as error:
            if not _is_damage(error):
                raise
            raise InputError(sentence(root_cause(error))) from error


def _is_damage(error: Exception) -> bool:
    # Of arrays that cannot be decoded orbax says so in an Exception of no class.
    return (type(error) is Exception or isinstance(error, _STORAGE_ERRORS)) and not is_out_of_memory(error)


@contextlib.contextmanager
def _without_left_overs() -> Iterator[None]:
    """Python does not print the errors of the other reads once one has failed."""
    before = sys.unraisablehook

    def show(unraisable: "sys.UnraisableHookArgs") -> None:
        if not any(words in str(unraisable.exc_value) for words in _LEFT_OVER):
            before(unraisable)

    sys.unraisablehook = show
    yield
    sys.unraisablehook = before  # not after a failure: the reads end, and are told of, later
