"""Configuration: frozen dataclasses, filled from a YAML file and strict `key=value` overrides.

A configuration class is a pydantic dataclass made by `config_dataclass`; field types carry the allowed ranges. A typo,
a wrong type or a number out of range raises `InputError` naming the key, what is wrong and the nearest valid key.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic
import yaml

from mimicmotion_jax.config_mistakes import explain, flatten
from mimicmotion_jax.runtime.errors import InputError

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config_dataclass(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass whose values are validated and which rejects unknown keys."""
    rules = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=rules)(cls)


def values_of(cls: type[Any], config: Any) -> dict[str, Any]:
    """What a configuration says of the options that it has from `cls`, a class that its own is derived from."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(cls)}


def load_config(cls: type[T], path: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Build a `cls` from a YAML file (optional), then `key=value` or `section.key=value` overrides.

    Raises:
        InputError: unreadable or malformed YAML, unknown key, wrong type, value out of range.
    """
    return build_config(cls, read_values(path, overrides), source=str(path) if path else "the configuration")


def read_values(path: str | Path | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a YAML file (optional) and then overrides say, not yet validated.

    Raises:
        InputError: unreadable or malformed YAML, an override that is no `key=value`.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise InputError(f"'{override}' is not an option; write key=value, for example seed=7.")
        try:
            value = yaml.safe_load(text)
        except (ValueError, RecursionError, yaml.YAMLError):
            value = text
        _set(values, key.strip().split("."), value, override)
    return values


def build_config(cls: type[T], values: dict[str, Any], source: str = "the configuration") -> T:
    """Build a `cls` from a dictionary; `source` names the origin in the error message.

    Raises:
        InputError: unknown key, wrong type or value out of range.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise InputError(f"{source} has a mistake: {explain(cls, error.errors())}.") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and scalars, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def describe(cls: type) -> str:
    """One line per option with its default, for `--help`."""
    defaults = to_dict(cls())
    return "\n".join(f"  {key}={_yaml_scalar(value)}" for key, value in flatten(defaults))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"there is no configuration file {path}; the ones that come with us are in configs/."
        ) from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; write 'key: value' lines.") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter: no text, or a date such as 2026-99-99
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise InputError(f"{path} is not valid YAML{line}; write 'key: value' lines.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no 'key: value' lines.")
    return values


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise InputError(f"'{override}' sets a key inside '{key}', which is a single value.")
    values[keys[-1]] = value


def _yaml_scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
