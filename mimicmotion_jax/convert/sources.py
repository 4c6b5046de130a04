"""Official files: the SVD folder and MimicMotion's weights, found on this machine or on the hub."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mimicmotion_jax.convert.tables import Table
from mimicmotion_jax.convert.torch_files import PICKLES, Entry, TensorFile, open_tensor_file
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.hub import HubRepository

DEFAULT_HUB_FILE = "MimicMotion_1-1.pth"
# Variants of a file in the order in which they are taken. fp16 is what MimicMotion was made with and half the download.
_VARIANTS = {"float32": ("", ".fp16", ".bf16"), "bfloat16": (".bf16", ".fp16", "")}
_DEFAULT_VARIANTS = (".fp16", "", ".bf16")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Repository(Protocol):
    """A place with files by relative name.

    Attributes:
        name: the user's name for it.
    """

    name: str

    def get(self, file: str) -> Path | None:
        """Return the file's path on this machine, fetched if need be; None if there is no such file."""
        ...

    def missing(self, what: str) -> InputError:
        """Error for a file that is needed and that `get` did not find."""
        ...


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, path: Path):
        self.name, self._path = str(path), path

    def get(self, file: str) -> Path | None:
        """Return the file's path; None if there is no such file."""
        path = self._path / file
        return path if path.is_file() else None

    def missing(self, what: str) -> InputError:
        """Error for a file that is needed and that `get` did not find."""
        return InputError(f"{self.name} lacks {what}; complete the folder or give another one.")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The file or shards of one set of weights, opened.

    Attributes:
        name: the user's name for it.
        files: the opened files.
    """

    name: str
    files: Sequence[TensorFile]

    @property
    def entries(self) -> list[Entry]:
        """Tensors of all files; a key that two shards hold appears twice."""
        return [entry for file in self.files for entry in file.entries]


def open_svd(svd: str) -> Repository:
    """Open the SVD folder, or a repository of the hub by its id.

    Raises:
        InputError: neither.
    """
    path = Path(svd).expanduser()
    if path.is_dir():
        return LocalFolder(path)
    if path.exists() or not _HUB_ID.fullmatch(svd):
        raise InputError(f"{svd} is neither a folder nor a hub id such as stabilityai/stable-video-diffusion-img2vid.")
    return HubRepository(svd)


def read_official_config(svd: Repository, folder: str) -> Mapping[str, Any]:
    """Read the `config.json` of one network's folder.

    Raises:
        InputError: missing or malformed.
    """
    file = f"{folder}/config.json"
    path = svd.get(file)
    if path is None:
        raise svd.missing(file)
    return _read_json_object(f"{svd.name}/{file}", path)


def open_svd_weights(svd: Repository, table: Table, dtype: str | None) -> Weights:
    """Open the weights of one network: the variant nearest to `dtype`, safetensors before pickle, one file or shards.

    Raises:
        InputError: no weights there, or one that is truncated, malformed or dangerous.
    """
    folder, (safetensors, pickled) = table.folder or "", table.stems
    for stem, suffix in ((safetensors, "safetensors"), (pickled, "bin")):
        for variant in _VARIANTS.get(dtype or "", _DEFAULT_VARIANTS):
            for file in (f"{stem}{variant}.{suffix}", f"{stem}.{suffix}.index{variant}.json"):
                if path := svd.get(f"{folder}/{file}"):
                    return _open(svd, folder, file, path)
    raise svd.missing(f"weights for the {folder} ({folder}/{safetensors}.fp16.safetensors or a variant)")


def open_mimicmotion(mimicmotion: str) -> Weights:
    """Open MimicMotion's weights: a file, an index of shards, a hub id, or a hub id with the name of a file in it.

    Raises:
        InputError: no such file, or one that is truncated, malformed or dangerous.
    """
    path = Path(mimicmotion).expanduser()
    if path.is_file():
        return _open(LocalFolder(path.parent), "", path.name, path)
    if path.is_dir():
        raise InputError(f"{mimicmotion} is a folder; name the file in it, for example {path / DEFAULT_HUB_FILE}.")
    owner, _, rest = mimicmotion.partition("/")
    name, _, file = rest.partition("/")
    if not _HUB_ID.fullmatch(f"{owner}/{name}"):
        raise InputError(f"{mimicmotion} is neither a file nor a hub id such as tencent/MimicMotion; check the name.")
    repository = HubRepository(f"{owner}/{name}")
    file = file or DEFAULT_HUB_FILE
    fetched = repository.get(file)
    if fetched is None:
        raise repository.missing(file)
    return _open(repository, "", file, fetched)


def _open(repository: Repository, folder: str, file: str, path: Path) -> Weights:
    names = [file]
    if path.suffix == ".json":
        index = _read_json_object(f"{repository.name}/{file}", path)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise InputError(f"{repository.name}/{file} is not an index of shards: it has no weight_map.")
        names = sorted(set(weight_map.values()))
        if strange := [name for name in names if Path(name).name != name]:
            raise InputError(f"{repository.name}/{file} names a shard outside its folder: {strange[0]}.")
    elif path.suffix not in (".safetensors", *PICKLES):
        raise InputError(f"{path} is not a checkpoint; its name must end in .safetensors, {', '.join(PICKLES)}.")
    files = []
    for name in names:
        relative = f"{folder}/{name}".lstrip("/")
        shard = repository.get(relative)
        if shard is None:
            raise repository.missing(relative)
        files.append(open_tensor_file(f"{repository.name}/{relative}", shard))
    return Weights(f"{repository.name}/{folder}/{file}".replace("//", "/"), files)


def _read_json_object(name: str, path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError):
        raise InputError(f"{name} is not valid JSON; fetch it again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{name} does not hold a JSON object; fetch it again.")
    return content
