"""Checksums of weights and training states, so that damaged numbers are found before they are used.

    DIR/params/checksums.json      {"unet-00000/d/12249a…": "9b1c03f2", …}, CRC-32 of every file of every group
    OUTPUT/checkpoints/30/checksums.json    the same for a training state

Local checkpoints only: object stores behind gs:// check what they deliver, and reading it twice would be a download.
"""

import json
import zlib
from pathlib import Path

from etils import epath

from mimicmotion_jax.checkpoint.files import check_content, read_object

CHECKSUMS = "checksums.json"
_BLOCK = 2**22  # bytes read at once


def write_checksums(params: epath.Path) -> None:
    """Write the checksums of all files in the folders of `params`; to be called when all are complete.

    Raises:
        OSError: they cannot be read or written.
    """
    if "://" in str(params):
        return
    files = sorted(path for path in Path(params).glob("*/**/*") if path.is_file())
    sums = {path.relative_to(params).as_posix(): _checksum(path) for path in files}
    (params / CHECKSUMS).write_text(json.dumps(sums, indent=0) + "\n")


def find_damage(params: epath.Path, group: str | None = None) -> str | None:
    """Compare files with their checksums; checkpoints of earlier versions have none and pass.

    Args:
        params: folder of the checksums.
        group: name of a folder in it whose files are compared; None compares all.

    Returns:
        a description of the first damage; None if there is none.

    Raises:
        InputError: the checksums themselves are damaged.
        OSError: a file cannot be read.
    """
    if "://" in str(params) or not (params / CHECKSUMS).exists():
        return None
    sums = check_content(dict[str, str], read_object(params / CHECKSUMS), params / CHECKSUMS)
    for name, expected in sums.items():
        if group is not None and not name.startswith(f"{group}/"):
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
