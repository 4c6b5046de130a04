"""Seconds, memory and differences of what runs on a device, in jax and in PyTorch."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from card.results import Row

_KEPT = 2**18  # values of a result that are kept for a comparison


def measure(run: Callable[[], Any], rounds: int, most: float = 10.0) -> tuple[Row, Any]:
    """Time a function that waits for its device: the first call, which compiles, and the median of some more.

    Args:
        run: function without arguments.
        rounds: number of timed calls.
        most: seconds after which no further round begins.

    Returns:
        The figures, and what the first call returned.
    """
    start = time.perf_counter()
    out = run()
    first, seconds = time.perf_counter() - start, []
    begin = time.perf_counter()
    while len(seconds) < rounds and (not seconds or time.perf_counter() - begin < most):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"first_s": _short(first), "median_s": _short(statistics.median(seconds)), "rounds": len(seconds)}, out


def measure_kernel(run: Callable[[], Any], wait: Callable[[Any], Any], calls: int = 8) -> float:
    """Milliseconds per call of something short: calls follow each other without waiting, the median of three series."""
    wait(run())
    series = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(calls):
            out = run()
        wait(out)
        series.append(1e3 * (time.perf_counter() - start) / calls)
    return _short(statistics.median(series))


def jax_peak() -> Row:
    """Peak memory of this process on the first device, in GB; the host's where the device does not say it."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return {"peak_GB": round(stats["peak_bytes_in_use"] / 1e9, 3)}
    return {"host_peak_GB": host_peak()}


def torch_peak() -> Row:
    """Peak memory of PyTorch's tensors since the last call, in GB; the host's without a card."""
    import torch

    if not torch.cuda.is_available():
        return {"host_peak_GB": host_peak()}
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return {"peak_GB": round(peak, 3)}


def host_peak() -> float:
    """Peak resident memory of this process in GB (Linux)."""
    # VmHWM, because the peak of getrusage starts at the parent process's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6, 3)


def keep(path: Path, **arrays: np.ndarray) -> None:
    """Save a sample of at most 262,144 values of each array, the same positions for arrays of equal size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: sample(array) for name, array in arrays.items()})


def sample(array: np.ndarray, most: int = _KEPT) -> np.ndarray:
    """Values at `most` fixed random positions, or all if there are no more, float32."""
    flat = np.asarray(array).reshape(-1)
    if flat.size > most:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, most)]
    return flat.astype(np.float32)


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Compute ||a - b|| / ||b|| in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(f"{np.linalg.norm(a - b) / np.linalg.norm(b):.3g}")


def compare(path: Path, **arrays: np.ndarray) -> Row:
    """Relative difference of arrays from those that another part has kept in `path`."""
    if not path.exists():
        return {"missing": f"{path.stem}, to compare with"}
    with np.load(path) as kept:
        found = {name: relative_difference(sample(array), kept[name]) for name, array in arrays.items()}
    return {"difference": found if len(found) > 1 else next(iter(found.values()))}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
