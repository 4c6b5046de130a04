"""Writing PyTorch's file formats tensor by tensor: no more than one tensor is in memory."""

import contextlib
import dataclasses
import json
import math
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SAFETENSORS_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_LOCAL_HEADER_BYTES = 30  # of a zip record, before its name and extra field
_EXTRA_HEADER_BYTES = 4
_ALIGNMENT = 64  # of the tensors' data, torch.save's own


@dataclasses.dataclass(frozen=True)
class Spec:
    """A tensor to be written; `dtype` as in `float16`."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * (4 if self.dtype == "float32" else 2)


Add = Callable[["torch.Tensor"], None]


@contextlib.contextmanager
def safetensors_writer(path: Path, specs: Sequence[Spec]) -> Iterator[Add]:
    """Write a `.safetensors` file: the function that this yields takes the tensors in the order of `specs`."""
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

    torch itself writes the archive's skeleton, with holes for the data; its records are copied, the holes filled.
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

    # Memory that is never touched takes no room, nor do the holes in the file.
    empty = {spec.key: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs}
    with torch.serialization.skip_data():
        torch.save(empty, path)


def _aligned(record: zipfile.ZipInfo, position: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(record.filename)
    info.file_size = record.file_size
    start = position + _LOCAL_HEADER_BYTES + len(info.filename) + _EXTRA_HEADER_BYTES
    padding = -start % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    return info


def _write(file: "zipfile.IO[bytes]", tensor: "torch.Tensor", spec: Spec) -> None:
    import torch

    if tuple(tensor.shape) != spec.shape or str(tensor.dtype) != f"torch.{spec.dtype}":
        raise RuntimeError(f"{spec.key} came as {tuple(tensor.shape)} {tensor.dtype} instead of {spec}")
    file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _expect_end(waiting: Iterator[Spec]) -> None:
    if (spec := next(waiting, None)) is not None:
        raise RuntimeError(f"{spec.key} was announced but not written")
