"""What pydantic finds wrong with a configuration, in its writer's words: the key, what is allowed, what was given."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic

# Branches of a union appear in a location by the names of their types, beside the names of fields.
_TYPE = re.compile(r"function-|constrained-|tuple\[|literal\[|[A-Z]|(?:int|float|str|bool|none)$")
_UNKNOWN = "unexpected_keyword_argument"
_MOST = 5  # mistakes that are told at once
_LONGEST = 60  # characters of a value that are repeated


def explain(cls: type, details: Sequence[Mapping[str, Any]]) -> str:
    """The mistakes in what was to be a `cls`, separated by semicolons; `details` are pydantic's."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for detail in details:
        found.setdefault(_path(detail), []).append(detail)
    # Where a branch of a union went deeper, it is the one that was meant, and the others have nothing to say.
    inner = [path for path in found if not any(other != path and other[: len(path)] == path for other in found)]
    told = [_explain(cls, path, found[path]) for path in inner[:_MOST]]
    return "; ".join(told) + (f"; and {len(inner) - _MOST} more" if len(inner) > _MOST else "")


def first_mistake(error: pydantic.ValidationError) -> tuple[str, str]:
    """The dotted key of the first thing that is wrong, and what is wrong with it; for what no person has written."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), _reason(first["msg"])


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Rows of dotted key and value."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


def _path(detail: Mapping[str, Any]) -> tuple[str, ...]:
    parts = [str(part) for part in detail["loc"]]
    named = parts[-1:] if detail["type"] == _UNKNOWN else []  # that may be anything
    return (*(part for part in parts[: len(parts) - len(named)] if not _TYPE.match(part)), *named)


def _explain(cls: type, path: tuple[str, ...], details: Sequence[Mapping[str, Any]]) -> str:
    key = ".".join(path)
    for detail in details:
        if detail["type"] == _UNKNOWN:
            return _unknown(cls, path)
    # Of a union, the branches for this type of value.
    details = [detail for detail in details if not detail["type"].endswith("_type")] or details
    first = details[0]
    allowed = [_allowed(detail["msg"]) for detail in details]
    message = ", or ".join([allowed[0], *(text.removeprefix("input should be ") for text in allowed[1:])])
    if not key or first["type"] in ("missing", "value_error"):  # the latter says by itself what was given
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, not {_shortened(first['input'])}"


def _allowed(message: str) -> str:
    message = re.sub(r" or an instance of \w+|, unable to parse.*| after validation, not \d+", "", _reason(message))
    message = message.replace("a valid tuple", "a list").replace("Tuple", "List")
    return message[:1].lower() + message[1:]


def _reason(message: str) -> str:
    """A message without the prefix that pydantic gives to those of our own checks."""
    return message.removeprefix("Value error, ")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _unknown(cls: type, path: tuple[str, ...]) -> str:
    key, prefix = ".".join(path), "".join(f"{part}." for part in path[:-1])
    siblings = _fields(cls, path[:-1])
    near = [prefix + name for name in difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.5)]
    if not near:  # of another section perhaps
        near = difflib.get_close_matches(key, [name for name, _ in flatten(dataclasses.asdict(cls()))], n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else "known keys: " + ", ".join(prefix + name for name in siblings)
    return f"unknown key '{key}' ({hint})"


def _fields(cls: type, path: Sequence[str]) -> list[str]:
    """Names of the options of a section; none where it is no section."""
    for part in path:
        hint = typing.get_type_hints(cls).get(part)
        cls = next(_sections(hint), None)
        if cls is None:
            return []
    return [field.name for field in dataclasses.fields(cls)]


def _sections(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _sections(part)
