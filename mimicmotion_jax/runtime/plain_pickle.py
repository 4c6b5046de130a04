"""Pickles of NumPy arrays and plain containers, read without running code from them."""

import collections
import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from mimicmotion_jax.runtime.errors import InputError

MAX_ITEMS = 50_000_000
"""Most numbers, strings and containers in a pickle, counted as often as they are referred to."""

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")


def _empty_array(cls: type, shape: Any, dtype: Any) -> np.ndarray:
    """Make the empty array that the pickle fills afterwards; NumPy's own function would allocate any shape."""
    return np.ndarray((0,), np.uint8)


_ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _empty_array for module in _ARRAYS},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few classes that are allowed.

        Raises:
            InputError: any other.
        """
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        # How NumPy pickles scalars, and arrays by protocols 2 and 5.
        if (name == "scalar" and module in _ARRAYS) or (name == "_frombuffer" and module.startswith("numpy.")):
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return _to_bytes
        raise InputError(
            f"it asks for {module}.{name}, and only NumPy arrays, numbers, lists and dictionaries are read"
        )


def _to_bytes(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def load_pickle(content: bytes, name: str) -> Any:
    """Read a pickle of arrays, numbers, strings, lists and dictionaries.

    Raises:
        InputError: anything else in it, which is not run; damage; or more than `MAX_ITEMS` items.
    """
    try:
        found = _Unpickler(io.BytesIO(content)).load()
    except InputError as error:
        raise InputError(f"{name} was refused and nothing in it was run: {error}.") from None
    except Exception:  # the machine that runs a pickle has no error class of its own
        raise InputError(f"{name} is not a readable pickle; it may be cut short.") from None
    try:
        size = _count(found, {})
    except RecursionError:
        raise InputError(f"{name} is nested too deeply; it holds no keypoints.") from None
    if size > MAX_ITEMS:
        raise InputError(f"{name} holds more than {MAX_ITEMS:,} items; split it.")
    return found


def _count(item: Any, known: dict[int, float]) -> float:
    """Count the items of nested containers, with repetitions; infinite where one holds itself."""
    if isinstance(item, np.ndarray):
        inner: Any = item.ravel().tolist() if item.dtype.hasobject else ()
        own = 1 if item.dtype.hasobject else item.size
    elif isinstance(item, Mapping):
        inner, own = item.values(), 1
    else:
        inner, own = (item if isinstance(item, list | tuple | set | frozenset) else ()), 1
    if not inner:
        return own
    if id(item) not in known:
        known[id(item)] = float("inf")
        known[id(item)] = own + sum(_count(part, known) for part in inner)
    return known[id(item)]
