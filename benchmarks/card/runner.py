"""Runs named experiments in order, each in processes of its own with a time limit. Standard library only."""

import argparse
import contextlib
import dataclasses
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from card.results import Results, finished

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "torch", "diffusers", "transformers", "tokamax", "libtpu")
OURS = ("jax", "flax", "beartype", "jaxtyping", "einops", "pydantic", "safetensors")
VIDEO = (*OURS, "av")
TORCH = (*OURS, "torch", "diffusers", "transformers")
_MINUTES = 600.0
_LEAST = 20  # seconds that a part needs to come to anything
DEADLINE = "CARD_DEADLINE"
"""Environment variable of a part's process: the time (seconds since 1970) at which it is ended."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of an experiment.

    Attributes:
        name: name of the part.
        function: "module:function" in this package; called with (Results, part name, Size).
        needs: packages without which it is skipped.
        environment: variables of its process.
    """

    name: str
    function: str
    needs: tuple[str, ...] = OURS
    environment: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A named question with a limit in seconds for all its parts, at full size on an H100."""

    name: str
    question: str
    limit: int
    parts: tuple[Part, ...]


def main(experiments: Sequence[Experiment], description: str | None, folder: str, argv: list[str] | None = None) -> int:
    """Run the experiments that are not finished; the command line of `gpu.py` and `tpu.py`.

    Args:
        experiments: in order of value.
        description: first words of `--help`.
        folder: "gpu" or "tpu", below `benchmarks/results`.
        argv: arguments; None takes the process's.

    Returns:
        0, or 1 if a part failed.
    """
    args = _parse(experiments, description, folder, argv)
    if args.part:
        experiment, _, name = args.part.partition("/")
        part = _find(_find(experiments, experiment).parts, name)
        run_part(part, Results(args.output / f"{experiment}.json", only=args.rows), args.size)
        return 0
    if args.list:
        for experiment in experiments:
            print(f"{experiment.name:22} {experiment.limit:4} s  {experiment.question}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as `timeout` does: the part's process must go as well
    device = describe_device()
    size = args.size or ("full" if "host" not in device else "tiny")
    output = args.output or ROOT / "benchmarks" / "results" / folder / _slug(f"{device['device']} {size}")
    deadline = time.monotonic() + 60 * (args.minutes or _MINUTES)
    wanted = [experiment for experiment in experiments if not args.only or experiment.name in args.only]
    unlimited = args.minutes is not None and len(wanted) == 1
    for name in (experiment.name for experiment in wanted) if args.again else ():
        (output / f"{name}.json").unlink(missing_ok=True)
    failures = 0
    # What was tried without success comes after what has not been tried.
    for experiment in sorted(wanted, key=lambda experiment: (output / f"{experiment.name}.json").exists()):
        results = Results(output / f"{experiment.name}.json")
        if results.content.get("state") == "done":
            print(f"{experiment.name}: done before", flush=True)
            continue
        if deadline - time.monotonic() < _LEAST:
            print(f"{experiment.name}: no time left", flush=True)
            continue
        facts = {"experiment": experiment.name, "question": experiment.question, "size": size, **device, **versions()}
        results.content = {**facts, "command": " ".join(["python", *sys.argv]), **results.content}
        limit = deadline - time.monotonic()
        failures += _run(experiment, results, size, limit if unlimited else min(experiment.limit, limit), args.rows)
        write_memory(output)
    print(f"results: {output}", flush=True)
    return int(failures > 0)


def _parse(
    experiments: Sequence[Experiment], description: str | None, folder: str, argv: list[str] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [experiment.name for experiment in experiments]
    add = parser.add_argument
    about = "stop after so many minutes; an experiment named alone may take all of them; default: 600"
    add("--minutes", type=float, metavar="N", help=about)
    add("--only", nargs="+", choices=names, metavar="NAME", help="run only these; --list names all")
    add("--again", action="store_true", help="forget the results of these and measure anew")
    add("--list", action="store_true", help="list the experiments with their limits, and stop")
    add(
        "--rows", nargs="+", default=[], metavar="WORD", help="of blocks and step only the rows whose names contain one"
    )
    add("--size", choices=("full", "middle", "tiny"), help="default: full on an accelerator, tiny on a CPU")
    add("--tiny", action="store_const", const="tiny", dest="size", help="the same as --size tiny")
    add("--output", type=Path, metavar="DIR", help=f"folder of results; default: benchmarks/results/{folder}/DEVICE")
    add("--part", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _find(named: Sequence[Any], name: str) -> Any:
    return next(one for one in named if one.name == name)


def _run(experiment: Experiment, results: Results, size: str, limit: float, rows: Sequence[str]) -> int:
    """Run the parts that are not finished within `limit` seconds; returns the number of failed parts."""
    print(f"{experiment.name}: {experiment.question} (at most {limit:.0f} s)", flush=True)
    states = results.content.setdefault("processes", {})
    results.content["state"] = "running"
    deadline, failed = time.monotonic() + limit, 0
    for part in experiment.parts:
        if states.get(part.name, {}).get("state") in ("done", "skipped"):
            continue
        states[part.name] = state = _run_part(experiment.name, part, results, size, deadline - time.monotonic(), rows)
        # The rows are the child's.
        results.parts = results.content["parts"] = Results(results.path).parts
        if state["state"] == "done" and not all(map(finished, results.parts.get(part.name, {}).values())):
            state["state"] = "failed"
        if state["state"] == "done" and rows:
            state["state"] = "some rows"
        failed += state["state"] not in ("done", "skipped", "some rows")
        results.write()
    results.content["state"] = "unfinished" if failed or rows else "done"
    results.content["date"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    results.write()
    if not failed:
        shutil.rmtree(results.path.with_suffix(""), ignore_errors=True)
    return failed


def _run_part(
    experiment: str, part: Part, results: Results, size: str, limit: float, rows: Sequence[str]
) -> dict[str, Any]:
    """Run a part in a process; returns its state, seconds and peak memory."""
    if missing := [name for name in part.needs if importlib.util.find_spec(name) is None]:
        state = {"state": "skipped", "reason": f"needs {', '.join(missing)}, not installed here"}
        print(f"  {part.name}: {state['reason']}", flush=True)
        return state
    if limit < _LEAST:
        return {"state": "no time"}
    results.write()
    command = [sys.executable, sys.argv[0], "--part", f"{experiment}/{part.name}", "--size", size]
    command += ["--output", str(results.path.parent), *(["--rows", *rows] if rows else [])]
    start = time.monotonic()
    deadline = {DEADLINE: str(time.time() + limit)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(part) | deadline, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=limit)
        state = {"state": "done" if process.returncode == 0 else "failed"}
        if process.returncode:
            state |= {"code": process.returncode, "error": errors[-1500:]}
    except subprocess.TimeoutExpired:
        state = {"state": "out of time"}
    finally:  # also when this process is told to stop: nothing may hold the card afterwards
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return state | {"seconds": round(time.monotonic() - start, 1)}


def run_part(part: Part, results: Results, size: str) -> None:
    """Run a part in this process."""
    module, _, function = part.function.partition(":")
    getattr(importlib.import_module(f"card.{module}"), function)(results, part.name, size)


def environment(part: Part) -> dict[str, str]:
    """Environment of a part's process: XLA may use nearly all of the card's memory."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", **os.environ, **dict(part.environment)}


def describe_device() -> dict[str, str]:
    """Name and driver of the first NVIDIA card, or the TPU, or the host's CPU, without starting jax or PyTorch."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which("nvidia-smi"):
        found = subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines()
        if found:
            name, driver, memory = (value.strip() for value in found[0].split(","))
            return {"device": name, "driver": driver, "memory": memory}
    if list(Path("/dev").glob("accel*")) or list(Path("/dev").glob("vfio/[0-9]*")):
        return {"device": os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")}
    return {"device": f"{platform.machine()} CPU", "host": f"{os.cpu_count()} cores"}


def versions() -> dict[str, Any]:
    """Versions of Python and of the packages that matter, and the commit."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = None
    if shutil.which("git"):
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        commit = git.stdout.strip() or None
    return {"python": platform.python_version(), "versions": found, "commit": commit}


def write_memory(output: Path) -> None:
    """Write memory.json: the peak memory of every row that says it, largest first."""
    peaks = []
    for path in sorted(output.glob("*.json")):
        for part, rows in json.loads(path.read_text()).get("parts", {}).items():
            peaks += [(row["peak_GB"], path.stem, part, name) for name, row in rows.items() if "peak_GB" in row]
    keys = ("peak_GB", "experiment", "part", "row")
    rows = [dict(zip(keys, peak, strict=True)) for peak in sorted(peaks, key=lambda peak: -peak[0])]
    memory = Results(output / "memory.json")
    memory.content = {"peaks": rows}
    memory.write()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
