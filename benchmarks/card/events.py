"""Events of a profile that jax has written."""

from collections.abc import Iterator
from pathlib import Path

import jax


def events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Yield program id, operation and seconds of every event in a trace."""
    (path,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    yield int(stats.get("program_id", -1)), stats["hlo_op"], event.duration_ns / 1e9
