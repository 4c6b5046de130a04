"""Hashes, and records of what has been made from what: a JSON file whose `key` says whether it still holds."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etils import epath

from mimicmotion_jax.runtime.atomic_files import sha256_file, write_file


def sha256_json(value: Any) -> str:
    """Of plain dictionaries, lists and scalars, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_files(files: Iterable[tuple[str, epath.Path | Path]]) -> str:
    """Of several files and their names; in the order given."""
    return sha256_json([[name, sha256_file(path)] for name, path in files])


def read_record(path: Path, key: str) -> dict[str, Any] | None:
    """The record at `path` if it was made from `key`; None if not, or if it is not there or damaged."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("key") == key else None


def write_record(path: Path, key: str, content: dict[str, Any]) -> dict[str, Any]:
    """Write {"key": key, **content}, whole or not at all, and return it."""
    record = {"key": key, **content}
    write_text(path, json.dumps(record, allow_nan=False) + "\n")
    return record


def write_text(path: Path, text: str) -> None:
    """Write a file that appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())
