"""Order of file names by the numbers in them: frame_9 before frame_10."""

import re
from typing import Any


def natural_key(name: str) -> list[Any]:
    """Key for sorting names; numbers in them compare as numbers, however long, and letters without case."""
    parts = [part.lower() for part in re.split(r"(\d+)", name)]  # text and numbers by turns
    return [(len(part.lstrip("0")), part.lstrip("0")) if number % 2 else part for number, part in enumerate(parts)]
