"""Apache Beam: choosing a runner and its options, and mistakes of the user that its workers find."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mimicmotion_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Beam:
    """A runner and its options."""

    runner: Any
    flags: tuple[str, ...]

    def options(self) -> Any:
        """Return a new options object, since pipelines change theirs."""
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions(flags=list(self.flags))

    @property
    def is_local(self) -> bool:
        """Return True for the runner that works in this process."""
        return type(self.runner).__name__ == "FnApiRunner"


def choose_runner(options: Sequence[str], extra: str) -> Beam:
    """Make a runner from `key=value` options; `runner` names it, by default Beam's local one.

    Args:
        options: Beam's, without leading dashes.
        extra: of this package, that brings Beam.

    Raises:
        InputError: Beam is not installed, there is no such runner, or an option is not `key=value`.
    """
    try:
        from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
        from apache_beam.runners.runner import create_runner
    except ImportError:
        raise InputError(f'this needs Apache Beam; run pip install "mimicmotion_jax[{extra}]".') from None
    values = {}
    for option in options:
        key, equals, value = option.strip().partition("=")
        if not equals or not key:
            raise InputError(
                f"'{option}' is not an option of Apache Beam; write key=value, for example runner=FlinkRunner."
            )
        values[key] = value
    # The local engine by its own name: "DirectRunner" first tries another one that it has to download.
    name = values.pop("runner", "DirectRunner")
    try:
        runner = FnApiRunner() if name == "DirectRunner" else create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"Apache Beam has no runner '{name}' here ({error}).") from None
    return Beam(runner, tuple(f"--{key}={value}" for key, value in values.items()))


@contextlib.contextmanager
def plain_errors(kind: type[InputError]) -> Iterator[None]:
    """Raise a worker's error of this kind, or Ctrl-C, as such: runners report it as text in a traceback."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if sentences := re.findall(rf"\b{kind.__name__}: (.+?)(?: \[while running .*)?$", text, re.MULTILINE):
            raise kind(sentences[-1]) from None
        if re.search(r"\bKeyboardInterrupt(?: \[while running .*)?$", text, re.MULTILINE):
            raise KeyboardInterrupt from None
        raise
