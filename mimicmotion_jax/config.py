"""Configuration: frozen dataclasses, filled from a YAML file and strict `key=value` overrides.

A configuration class is a pydantic dataclass made by `config_dataclass`. Field types carry the allowed ranges; the
string below a field says what it means and is printed by `--help`:

    @config_dataclass
    class SamplingConfig:
        num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 25
        "Number of denoising steps."

A typo, a wrong type or a number out of range raises `InputError` naming the key, what is allowed and what was given.
"""

import dataclasses
import difflib
import itertools
import reprlib
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import pydantic
import yaml
from etils import epath

from mimicmotion_jax.runtime.errors import InputError

T = TypeVar("T")

_MAX_MISTAKES = 5  # reported at once
_MAX_LISTED = 12  # known keys that are listed beside the nearest one
_MAX_YAML = 2**20  # characters of a file
_MAX_YAML_ITEMS = 200_000  # keys and values, aliases counted as what they stand for
_HELP_WIDTH = 120
_KEY_WIDTH = 32  # meanings begin in this column of `--help`


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config_dataclass(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass whose values are validated and which rejects unknown keys."""
    rules = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    return typing.cast(type[T], pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=rules)(cls))


def load_config(cls: type[T], path: epath.PathLike | None = None, overrides: Sequence[str] = ()) -> T:
    """Build a `cls` from a YAML file (optional), then `key=value` or `section.key=value` overrides.

    Raises:
        InputError: unreadable or malformed YAML, unknown key, wrong type, value out of range.
    """
    return build_config(cls, read_values(path, overrides), source=str(path) if path else "the configuration")


def read_values(path: epath.PathLike | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read the values of a YAML file (optional), then of overrides, without validating them.

    Raises:
        InputError: unreadable or malformed YAML, an override that is not `key=value`.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(epath.Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise InputError(f"'{override}' is not an option; write key=value, for example seed=7.")
        try:
            value = _load_yaml(text)
        except Exception:  # see `parse_yaml`
            value = text
        _set(values, key.strip().split("."), value, override)
    return values


def build_config(cls: type[T], values: Mapping[str, Any], source: str = "the configuration") -> T:
    """Build a `cls` from a dictionary; `source` names the origin in the error message.

    Raises:
        InputError: unknown key, wrong type or value out of range.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise InputError(f"{source} has a mistake: {_explain(cls, error)}.") from None


def values_of(cls: type[Any], config: Any) -> dict[str, Any]:
    """Values of the fields that `config` inherits from its base class `cls`, for building another class from them."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(cls)}


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a configuration to plain dictionaries, lists and scalars, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def describe(cls: type) -> str:
    """List the options of a configuration class with defaults and meanings, for `--help`."""
    lines = []
    for key, default, meaning in _options(cls()):
        text = yaml.safe_dump(default, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
        option, indent = f"  {key}={text}", " " * _KEY_WIDTH
        first, *more = textwrap.wrap(" ".join(meaning.split()), _HELP_WIDTH - _KEY_WIDTH) or [""]
        if len(option) <= _KEY_WIDTH - 2:
            lines.append(f"{option:{_KEY_WIDTH}}{first}".rstrip())
        else:
            lines += [option, *([indent + first] if first else [])]
        lines += [indent + line for line in more]
    return "\n".join(lines)


def meanings(cls: type) -> dict[str, str]:
    """Meaning of each option of a configuration class, by its dotted key: the text below the field."""
    return {key: " ".join(meaning.split()) for key, _, meaning in _options(cls)}


def first_mistake(error: pydantic.ValidationError) -> tuple[str, str]:
    """Return the dotted key and the description of the first of pydantic's errors, for files not written by hand."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), _message(first)


def _read_yaml(path: epath.Path) -> dict[str, Any]:
    try:
        if path.stat().length > 4 * _MAX_YAML:
            raise InputError(f"{path} is too long for a configuration; give a YAML file of 'key: value' lines.")
        text = path.read_text()
    except FileNotFoundError:
        raise InputError(f"there is no configuration file {path}; examples are in configs/.") from None
    except OSError as error:
        raise InputError(f"the configuration file {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not valid YAML: it is not text; write 'key: value' lines.") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: epath.PathLike) -> dict[str, Any]:
    """Parse the text of a YAML file of 'key: value' lines; `path` names it in errors.

    Raises:
        InputError: not such YAML, or more of it than a configuration has.
    """
    if len(text) > _MAX_YAML:
        raise InputError(f"{path} is too long for a configuration: {len(text):,} characters, at most {_MAX_YAML:,}.")
    try:
        values = _load_yaml(text)
    except _ExpandsError:
        raise InputError(
            f"{path} expands to more than {_MAX_YAML_ITEMS:,} items; write it without nested aliases."
        ) from None
    except Exception as error:  # PyYAML also raises ValueError, KeyError, AttributeError and RecursionError
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise InputError(f"{path} is not valid YAML{line}; write 'key: value' lines.") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} holds no 'key: value' lines.")
    return values


class _ExpandsError(ValueError):
    """A text of YAML stands for more than its length: aliases within aliases."""


def _load_yaml(text: str) -> Any:
    """Load YAML; what its aliases stand for is counted before any of it is built."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_items(node, {}) > _MAX_YAML_ITEMS:
            raise _ExpandsError
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count_items(node: yaml.Node, known: dict[int, float]) -> float:
    """Count a node and all below it, as often as they are referred to; infinite if it contains itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_count_items(part, known) for part in parts)
    return known[id(node)]


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise InputError(f"'{override}' sets a key inside '{key}', which is a single value.")
    values[keys[-1]] = value


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Rows of dotted key, value and meaning of a configuration, or of a class and its defaults."""
    bases = (config if isinstance(config, type) else type(config)).__mro__
    for field in dataclasses.fields(config):
        value = getattr(config, field.name, None)
        if dataclasses.is_dataclass(value):
            yield from _options(value, f"{prefix}{field.name}.")
            continue
        # pydantic finds the string below a field in the class that declares it, not in those derived from it.
        declared = (vars(base).get("__pydantic_fields__", {}).get(field.name) for base in bases)
        meaning = next((info.description for info in declared if info and info.description), "")
        yield prefix + field.name, value, meaning


def _explain(cls: type, error: pydantic.ValidationError) -> str:
    """Describe the mistakes in the values for a `cls`, separated by semicolons."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors():
        found.setdefault(_path(cls, detail), []).append(detail)
    # Of the branches of a union, the one that went deepest was meant.
    deepest = [path for path in found if not any(other != path and other[: len(path)] == path for other in found)]
    texts = [_explain_one(cls, path, found[path]) for path in deepest[:_MAX_MISTAKES]]
    return "; ".join(texts) + (f"; and {len(deepest) - _MAX_MISTAKES} more" if len(deepest) > _MAX_MISTAKES else "")


def _path(cls: type, detail: Any) -> tuple[str, ...]:
    """Keys and indices of an error's location, without the names that pydantic gives to branches of a union."""
    path: list[str] = []
    section: type | None = cls
    for part in detail["loc"]:
        if isinstance(part, int) or (section and part in _fields(section)):
            path.append(str(part))
            section = _section(section, part)
    if detail["type"] == "unexpected_keyword_argument":
        path.append(str(detail["loc"][-1]))
    return tuple(path)


def _explain_one(cls: type, path: tuple[str, ...], details: Sequence[Any]) -> str:
    key, first = ".".join(path), details[0]
    if first["type"] == "unexpected_keyword_argument":
        return _unknown(cls, path)
    # Of a union, keep the branches for this type of value.
    details = [detail for detail in details if not detail["type"].endswith("_type")] or details
    message = ", or ".join(dict.fromkeys(_message(detail) for detail in details))
    if first["type"] not in ("missing", "value_error"):  # which need no value, or quote it
        message += f", not {reprlib.repr(first['input'])}"
    return f"{key}: {message}" if key else message


def _message(detail: Any) -> str:
    text = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    return text[:1].lower() + text[1:]


def _unknown(cls: type, path: tuple[str, ...]) -> str:
    section: type | None = cls
    for part in path[:-1]:
        section = _section(section, part)
    prefix = "".join(f"{part}." for part in path[:-1])
    siblings = [prefix + name for name in (_fields(section) if section else ())]
    key = ".".join(path)
    near = difflib.get_close_matches(key, siblings, n=1) or difflib.get_close_matches(
        key, [name for name, _, _ in _options(cls)], n=1
    )
    hints = [f"did you mean '{near[0]}'?"] if near else []
    if not near or len(siblings) <= _MAX_LISTED:
        hints.append("known keys: " + ", ".join(siblings))
    return f"unknown key {key!r} ({' '.join(hints)})"


def _fields(section: type) -> list[str]:
    return [field.name for field in dataclasses.fields(section)]


def _section(section: type | None, name: str | int) -> type | None:
    """The configuration class among the types of a field, if there is one."""
    hint = typing.get_type_hints(section).get(str(name)) if section else None
    parts = (hint, *typing.get_args(hint))
    return next((part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)), None)
