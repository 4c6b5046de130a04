"""Results of one experiment in a JSON file that is complete after every row. Standard library only."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Skipped(Exception):
    """Raised by a row that cannot run here, with the reason."""


class Results:
    """Rows of an experiment by part and name, written to `path` at once.

    Args:
        path: JSON file; rows that are in it already are kept.
        facts: what else the file says, such as the device and the command.
        only: words of which a row's name must contain one; empty for all rows.
    """

    def __init__(self, path: Path, facts: Row | None = None, only: Sequence[str] = ()):
        self.path, self.only = path, only
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.content |= facts or {}
        self.parts: dict[str, dict[str, Row]] = self.content.setdefault("parts", {})

    def write(self) -> None:
        """Replace the file in one move, so that whoever stops the program finds a whole one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(partial, self.path)

    def row(self, part: str, name: str, measure: Callable[[], Row]) -> None:
        """Measure a row unless it is there; a failure is printed and becomes a row, and the next one is measured.

        Args:
            part: process that measures it.
            name: name of the row.
            measure: returns its values.
        """
        rows = self.parts.setdefault(part, {})
        if finished(rows.get(name)):
            return
        start = time.perf_counter()
        try:
            found = measure()
        except (Skipped, ModuleNotFoundError) as reason:
            found = {"skipped": str(reason)}
        except Exception as error:  # out of memory, refused by a compiler: an answer too
            traceback.print_exc(file=sys.stdout)
            lines = str(error).strip().splitlines() or [""]
            found = {"failed": f"{type(error).__name__}: {lines[0][:500]}"}
        rows[name] = found | {"took_s": round(time.perf_counter() - start, 1)}
        self.write()
        print(f"  {part}, {name}: {json.dumps(rows[name])[:300]}", flush=True)

    def wants(self, name: str) -> bool:
        """Return True if a row of this name shall be measured."""
        return not self.only or any(word in name for word in self.only)

    def array_path(self, part: str, name: str) -> Path:
        """File for values that another part compares with; removed when the experiment is done."""
        return self.path.with_suffix("") / f"{part}-{name}.npz"


def finished(row: Row | None) -> bool:
    """Return True for a row with all its values, or a reason why it cannot have any."""
    return row is not None and not {"failed", "missing"} & row.keys()
