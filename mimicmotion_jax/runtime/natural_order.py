"""Order of file names by the numbers in them: frame_9 before frame_10."""

import re


def natural_key(name: str) -> list[int | str]:
    """Key for sorting names; numbers in them compare as numbers, letters without case."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]
