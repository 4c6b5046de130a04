"""Finished pieces of long work, kept in files that are named by a hash of everything their content depends on.

A later run finds a piece under the same name and does not make it again. Local or gs://.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from etils import epath

from mimicmotion_jax.runtime.atomic_files import write_file
from mimicmotion_jax.runtime.errors import root_cause

logger = logging.getLogger(__name__)

T = TypeVar("T")


def content_key(*parts: Any) -> str:
    """Hash JSON values (dictionaries in any order of keys) to 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class BuildCache:
    """A folder of finished pieces; can be sent to another process."""

    folder: str

    def path(self, name: str) -> epath.Path:
        """Return the path of a piece, which may be missing."""
        return epath.Path(self.folder) / name

    def names(self) -> frozenset[str]:
        """List the pieces in one request; none where the folder does not exist."""
        folder = epath.Path(self.folder)
        return frozenset(path.name for path in folder.iterdir()) if folder.exists() else frozenset()

    def load(self, name: str, read: Callable[[epath.Path], T]) -> T | None:
        """Read a piece; None if it is missing or damaged (`read` raised an error), so that the caller makes it again.

        Args:
            name: file name of the piece.
            read: reads the file and checks its content.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            return read(path)
        except Exception as error:  # damaged content can raise anything, MemoryError included
            logger.warning("%s is damaged (%s); it is made again.", path, root_cause(error))
            return None

    def store(self, name: str, content: bytes) -> None:
        """Write a piece; it appears when it is complete, and replaces an earlier one.

        Raises:
            OSError: the file cannot be written.
        """
        write_file(self.path(name), content)

    def remove(self, *endings: str) -> None:
        """Remove the pieces whose names end like this."""
        for name in self.names():
            if name.endswith(endings):
                self.path(name).unlink(missing_ok=True)
