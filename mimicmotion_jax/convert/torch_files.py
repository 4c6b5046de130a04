"""Tensors in safetensors files and torch pickles, read a few at a time and without running code from them."""

import abc
import dataclasses
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mimicmotion_jax.runtime.errors import InputError, root_cause

if TYPE_CHECKING:
    import torch

PICKLES = (".pth", ".pt", ".bin")
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "module")  # where training checkpoints hold the tensors
_ZIP_MAGIC = b"PK\x03\x04"
_SAFETENSORS_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Errors of torch and pickle on bytes that are not a checkpoint: the parser has no error class of its own.
_MALFORMED = (
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor in a file: its key, shape and dtype (`float16`), known without reading its data."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    file: "TensorFile"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class TensorFile(abc.ABC):
    """A file of named tensors.

    Attributes:
        name: the user's name for it.
        path: its place on this machine.
        entries: its tensors.
    """

    def __init__(self, name: str, path: Path):
        self.name, self.path = name, path
        self.entries = tuple(self._list())

    @property
    def saved_name(self) -> str | None:
        """Name without suffix under which the file was first saved; None if its format does not record it."""
        return None

    @abc.abstractmethod
    def _list(self) -> Iterable[Entry]: ...

    @abc.abstractmethod
    def read(self, keys: Iterable[str]) -> Mapping[str, "torch.Tensor"]:
        """Read tensors by key, mapped from the file: the memory is freed when all of them are dropped."""

    @abc.abstractmethod
    def verify(self) -> None:
        """Compare the whole file with its checksums, where its format has any.

        Raises:
            InputError: damage, which the numbers alone would not show.
        """


def open_tensor_file(name: str, path: Path) -> TensorFile:
    """Open a file by its suffix.

    Args:
        name: the file's name in messages.
        path: its place on this machine.

    Raises:
        InputError: unknown suffix, truncated or malformed file, a pickle that holds more than tensors.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError('reading PyTorch files needs torch: pip install "mimicmotion_jax[torch]".') from None
    if path.suffix == ".safetensors":
        return SafetensorsFile(name, path)
    if path.suffix in PICKLES:
        return PickleFile(name, path)
    raise InputError(f"{name} is not a checkpoint file; its name must end in .safetensors, {', '.join(PICKLES)}.")


class SafetensorsFile(TensorFile):
    """A `.safetensors` file."""

    def _list(self) -> Iterable[Entry]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    header = file.get_slice(key)
                    dtype = header.get_dtype()
                    yield Entry(key, tuple(header.get_shape()), _SAFETENSORS_DTYPES.get(dtype, str(dtype)), self)
        except SafetensorError as error:
            raise InputError(f"{self.name} is truncated or not a safetensors file ({error}); fetch it again.") from None

    def read(self, keys: Iterable[str]) -> Mapping[str, "torch.Tensor"]:
        """Read tensors by key, mapped from the file."""
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in keys}

    def verify(self) -> None:
        """Do nothing: the format has no checksums."""


class PickleFile(TensorFile):
    """A state dict written by `torch.save`, unpickled by torch's loader that knows tensors and nothing else.

    It may lie in a training checkpoint, under "state_dict", "model_state_dict", "model" or "module".
    """

    def __init__(self, name: str, path: Path):
        with path.open("rb") as file:
            self._mappable = file.read(4) == _ZIP_MAGIC
        self._loaded: Mapping[str, torch.Tensor] | None = None
        super().__init__(name, path)

    @property
    def saved_name(self) -> str | None:
        """Folder in the archive that `torch.save` names after the file."""
        if not self._mappable:
            return None
        with zipfile.ZipFile(self.path) as records:
            return records.namelist()[0].partition("/")[0]

    def _list(self) -> Iterable[Entry]:
        import torch

        tensors = self._load()
        if not isinstance(tensors, dict):
            raise InputError(f"{self.name} holds a {type(tensors).__name__} instead of a dictionary of tensors.")
        for key, tensor in tensors.items():
            if not isinstance(key, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
                raise InputError(
                    f"{self.name} is not a plain dictionary of tensors: {key!r} holds a {type(tensor).__name__}; "
                    "save the state dict alone."
                )
            yield Entry(key, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), self)
        # torch's format before 2020 cannot be mapped, so what was read stays in memory.
        self._loaded = None if self._mappable else tensors

    def read(self, keys: Iterable[str]) -> Mapping[str, "torch.Tensor"]:
        """Read tensors by key, mapped from the file unless it is in torch's format before 2020."""
        tensors = self._loaded or self._load()
        return {key: tensors[key] for key in keys}

    def verify(self) -> None:
        """Compare the records of a zip with their CRC-32, which torch's loader ignores.

        Raises:
            InputError: damage, which the numbers alone would not show.
        """
        if not self._mappable:
            return
        try:
            with zipfile.ZipFile(self.path) as records:
                # All zero: `torch.serialization.set_crc32_options(False)` has left them out.
                checked = any(record.CRC for record in records.infolist())
                damaged = records.testzip() if checked else None
        except (*_MALFORMED, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{self.name} is damaged ({root_cause(error)}); fetch it again.") from None
        if damaged is not None:
            raise InputError(f"{self.name} is damaged (its record {damaged} has another checksum); fetch it again.")

    def _load(self) -> Mapping[str, "torch.Tensor"]:
        import torch

        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=self._mappable)
        except _MALFORMED as error:
            # torch names what the pickle asked for, and has not run it.
            if refused := re.search(r"(?:Unsupported global: )?GLOBAL (\S+)", str(error)):
                raise InputError(
                    f"{self.name} was refused and nothing in it was run: besides tensors it asks for {refused[1]}; "
                    "take the file from a source you trust, best as .safetensors."
                ) from None
            raise InputError(
                f"{self.name} was refused and nothing in it was run: it is truncated, or not a PyTorch checkpoint of "
                "plain tensors; fetch it again."
            ) from error
        while isinstance(content, dict):
            inner = next((content[key] for key in _STATE_DICTS if isinstance(content.get(key), dict)), None)
            if inner is None:
                break
            content = inner
        return content
