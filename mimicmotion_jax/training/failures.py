"""Failures that should not end a run."""

import contextlib
import logging
from collections.abc import Iterator

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.out_of_memory import report_out_of_memory

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def log_failures(what: str, advice: str) -> Iterator[None]:
    """Log it, rather than end the run, if memory, disk or options do not allow for samples.

    Args:
        what: subject of the message, in the plural.
        advice: what to change if memory runs out.
    """
    try:
        with report_out_of_memory(advice):
            yield
    except (InputError, OSError) as error:
        logger.warning("%s could not be made, the run goes on: %s", what, error)
