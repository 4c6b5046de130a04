"""Hashes of inputs, and JSON records whose `key`, a hash of the inputs, tells whether a result is current."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etils import epath

from mimicmotion_jax.runtime.atomic_files import sha256_file, write_file


def sha256_json(value: Any) -> str:
    """Hash plain dictionaries, lists and scalars; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_files(files: Iterable[tuple[str, epath.Path | Path]]) -> str:
    """Hash several files and their names, in the order given."""
    return sha256_json([[name, sha256_file(path)] for name, path in files])


def read_record(path: Path, key: str) -> dict[str, Any] | None:
    """Read the record at `path`; None if it is missing, damaged or has another key."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("key") == key else None


def write_record(path: Path, key: str, content: dict[str, Any]) -> dict[str, Any]:
    """Write {"key": key, **content} atomically and return it."""
    record = {"key": key, **content}
    write_text(path, json.dumps(record, allow_nan=False) + "\n")
    return record


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, and its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())
