"""Writers of PyTorch's file formats that take one tensor at a time, so that no network is held in memory.

`torch.save` and safetensors' `save_file` need all tensors at once. Exporting the full-size float16 model with them
peaks at 5.45 GiB and takes 127 s; with these writers it peaks at 1.05 GiB and takes 61 s (`to_torch` of
`python benchmarks/conversion.py`).
"""

import contextlib
import dataclasses
import json
import math
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SAFETENSORS_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_LOCAL_HEADER_BYTES = 30  # start of a zip record, before its name and extra field
_EXTRA_HEADER_BYTES = 4
_ALIGNMENT = 64  # bytes; torch.save aligns the tensors' data so


@dataclasses.dataclass(frozen=True)
class Spec:
    """Key, shape and dtype (`float16`) of a tensor to be written."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * (4 if self.dtype == "float32" else 2)


Add = Callable[["torch.Tensor"], None]


@contextlib.contextmanager
def safetensors_writer(path: Path, specs: Sequence[Spec]) -> Iterator[Add]:
    """Write a `.safetensors` file; the function that this yields takes the tensors in the order of `specs`.

    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        end = offset + spec.nbytes
        code = _SAFETENSORS_CODES[spec.dtype]
        header[spec.key] = {"dtype": code, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    waiting = iter(specs)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        yield lambda tensor: _write(file, tensor, next(waiting))
    _expect_end(waiting)


@contextlib.contextmanager
def pickle_writer(path: Path, specs: Sequence[Spec]) -> Iterator[Add]:
    """Write a `torch.save` file of one state dict; the function that this yields takes tensors in the order of `specs`.

    torch itself writes the archive without the tensors' data; its records are copied and the data filled in.

    Raises:
        OSError: the file cannot be written.
    """
    waiting = iter(specs)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        skeleton = Path(folder, path.name)
        _write_skeleton(skeleton, specs)
        with zipfile.ZipFile(skeleton) as source, path.open("wb") as file, zipfile.ZipFile(file, "w") as target:
            records = iter(source.infolist())

            def copy_until_data() -> zipfile.ZipInfo | None:
                for record in records:
                    if "/data/" in record.filename:
                        return record
                    target.writestr(_aligned(record, file.tell()), source.read(record))
                return None

            def add(tensor: "torch.Tensor") -> None:
                record = copy_until_data()
                spec = next(waiting)
                if record is None or record.file_size != spec.nbytes:
                    raise RuntimeError(f"torch.save laid {path.name} out in an unknown way at {spec.key}")
                with target.open(_aligned(record, file.tell()), "w") as data:
                    _write(data, tensor, spec)

            yield add
            if copy_until_data() is not None:
                raise RuntimeError(f"{path.name}: fewer tensors than announced")
    _expect_end(waiting)


def _write_skeleton(path: Path, specs: Sequence[Spec]) -> None:
    import torch

    # Neither memory that is never touched nor the skipped data in the file takes space.
    empty = {spec.key: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs}
    try:
        with torch.serialization.skip_data():
            torch.save(empty, path)
    except RuntimeError:
        path.write_bytes(bytes(2**16))  # of a full disk torch does not say so; this does
        raise


def _aligned(record: zipfile.ZipInfo, position: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(record.filename)
    info.file_size = record.file_size
    start = position + _LOCAL_HEADER_BYTES + len(info.filename) + _EXTRA_HEADER_BYTES
    padding = -start % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    return info


def _write(file: IO[bytes], tensor: "torch.Tensor", spec: Spec) -> None:
    import torch

    if tuple(tensor.shape) != spec.shape or str(tensor.dtype) != f"torch.{spec.dtype}":
        raise RuntimeError(f"{spec.key} came as {tuple(tensor.shape)} {tensor.dtype} instead of {spec}")
    file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _expect_end(waiting: Iterator[Spec]) -> None:
    if (spec := next(waiting, None)) is not None:
        raise RuntimeError(f"{spec.key} was announced but not written")
