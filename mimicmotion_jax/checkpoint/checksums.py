"""Checksums of a checkpoint's parameters, so that damaged numbers are found before they are used.

    DIR/params/checksums.json      {"unet-00000/d/12249a…": "9b1c03f2", …}, CRC-32 of every file of every group

Local checkpoints only: object stores behind gs:// check what they deliver, and reading it twice would be a download.
"""

import json
import zlib
from pathlib import Path

from etils import epath

from mimicmotion_jax.checkpoint.files import check_content, read_object

_FILE = "checksums.json"
_BLOCK = 2**22  # bytes read at once


def write_checksums(params: epath.Path) -> None:
    """Write the checksums of all groups in the folder `params`; to be called when all files are complete.

    Raises:
        OSError: they cannot be read or written.
    """
    if "://" in str(params):
        return
    files = sorted(path for path in Path(params).rglob("*") if path.is_file())
    sums = {path.relative_to(params).as_posix(): _checksum(path) for path in files}
    (params / _FILE).write_text(json.dumps(sums, indent=0) + "\n")


def find_damage(params: epath.Path, group: str) -> str | None:
    """Compare the files of one group with their checksums; checkpoints of earlier versions have none and pass.

    Args:
        params: folder of the groups.
        group: name of a folder in it.

    Returns:
        a description of the first damage; None if there is none.

    Raises:
        InputError: the checksums themselves are damaged.
        OSError: a file cannot be read.
    """
    if "://" in str(params) or not (params / _FILE).exists():
        return None
    sums = check_content(dict[str, str], read_object(params / _FILE), params / _FILE)
    for name, expected in sums.items():
        if not name.startswith(f"{group}/"):
            continue
        if not (params / name).is_file():
            return f"{name} is missing"
        if _checksum(params / name) != expected:
            return f"{name} has another checksum than when it was written"
    return None


def _checksum(path: epath.PathLike) -> str:
    value = 0
    with epath.Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
