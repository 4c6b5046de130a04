"""Kill commands and fill their disk at random points; the same command must then complete to the same bits.

    python benchmarks/faults.py [--points 100] [--seed 0] [--media 300] [--output benchmarks/results/faults.json]

A point is a command, a fault (SIGKILL, SIGTERM, Ctrl-C or a full disk) and an instant: a change of a file that Python
makes, counted from the start, and a delay after it. Afterwards the same command must complete, with the same files and
the same bits as without a fault, nothing more and nothing less, and no traceback; a file that was finished stays.

The outputs lie in a small tmpfs in a namespace of its own (`unshare`), which is filled up for a full disk. Where that
is not permitted, a limit on the size of files stands for the full disk, and the results say so. `--media` adds damaged
media files (`damaged_media`).
"""

import argparse
import atexit
import collections
import contextlib
import datetime
import json
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Bits are compared with those of the same programs, so that quick compilation will do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

_NAMESPACE = "MIMICMOTION_FAULTS_MOUNTED"  # set in the process that may mount


def can_mount() -> bool:
    """Return True if this user may have a namespace in which to mount."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


if __name__ == "__main__" and _NAMESPACE not in os.environ and can_mount():  # before the imports, which take seconds
    os.environ[_NAMESPACE] = "1"
    os.execvp("unshare", ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv])

import damaged_media
import jax
import numpy as np
from fault_commands import COMMANDS, contents, prepare_inputs, warm_up

from mimicmotion_jax.runtime.errors import run_script

_DISK = 192 * 2**20  # bytes
_TIMEOUT = 900  # seconds after which a command hangs; the first of its kind compiles
_DELAY = 0.05  # seconds, mean
FAULTS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "ENOSPC": None}
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}


class Point(NamedTuple):
    """A fault to inject."""

    command: str
    fault: str
    instant: float
    """Part of the file changes that are made before the fault, from 0 to 1."""
    delay: float
    """Seconds between that change and the fault."""
    again: bool
    """The command was completed before, and is run over its own output."""


class Trigger:
    """Audit hook that counts changes of files in a folder and causes a fault at one of them.

    Args:
        folder: the changes that count are below it.
        count: shared with the process that waits.
        at: number of the change, from 1; None only counts.
        act: the fault.
        delay: seconds between them.
    """

    def __init__(self, folder: Path, count: mmap.mmap, at: int | None, act: Callable[[], None], delay: float):
        self._folder, self._count, self._at, self._act, self._delay = str(folder), count, at, act, delay
        self._number, self._acting = 0, False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self._acting or not self._is_change(event, args):
            return
        self._number += 1
        self._count[:8] = self._number.to_bytes(8, "little")
        if self._number == self._at:
            self._acting = True
            threading.Timer(self._delay, self._act).start()

    def _is_change(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = args
            changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        elif event in _CHANGES:
            path, changes = args[0], True
        else:
            return False
        return changes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._folder)


class Finished(NamedTuple):
    """End of a command."""

    status: int
    """Exit status, or minus the number of the signal that ended it."""
    stderr: str
    changes: int
    """Number of file changes that were counted."""


def run_forked(work: Callable[[], int | None], log: Path, hook: Callable[[mmap.mmap], Any] | None = None) -> Finished:
    """Run a function in a child process, which has everything imported already.

    Args:
        work: what is run; its result is the exit status.
        log: file for what it prints.
        hook: makes the audit hook, given memory that both processes share.
    """
    shared = mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            if hook is not None:
                sys.addaudithook(hook(shared))
            run_script(work)()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                threading._shutdown()  # as the interpreter does at its end
                atexit._run_exitfuncs()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    end = time.monotonic() + _TIMEOUT
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    status = os.waitstatus_to_exitcode(ended[1])
    return Finished(status, log.read_text(errors="replace"), int.from_bytes(shared[:8], "little"))


class Bench:
    """Everything that points have in common: inputs, disk, and the results without a fault.

    Args:
        folder: for inputs and logs.
        disk: folder of the outputs, of a size of its own if `is_small`.
        is_small: `disk` can be filled up.
    """

    def __init__(self, folder: Path, disk: Path, is_small: bool):
        self.folder, self.disk, self.is_small = folder, disk, is_small
        self.inputs, self._listing = folder / "inputs", folder / "contents.json"
        self._expected: dict[str, dict[str, str]] = {}
        self._changes: dict[tuple[str, bool], int] = {}

    def _run(self, name: str, hook: Callable[[mmap.mmap], Any] | None = None, is_faulty: bool = False) -> Finished:
        """Run a command; list the contents of its output, for `_contents`, unless a fault is to happen."""

        def work() -> int | None:
            status = COMMANDS[name].run(self.inputs, self.disk)
            if not status and not is_faulty:  # in the child, which has started jax, as this process must not
                self._listing.write_text(json.dumps(contents(self.disk)))
            return status

        return run_forked(work, self.folder / "log", hook)

    def _contents(self) -> dict[str, str]:
        return json.loads(self._listing.read_text())

    def _clear(self) -> None:
        for path in self.disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _changes_of(self, name: str, again: bool) -> int:
        """Run a command without a fault, over nothing or its own output, and count its changes; remember the result."""
        if (name, again) not in self._changes:
            if again:
                self._changes_of(name, False)
            self._prepare(name, again)
            ended = self._run(name, lambda shared: Trigger(self.disk, shared, None, _nothing, 0))
            assert ended.status == 0, f"{name}: {ended.stderr}"
            self._changes[name, again] = ended.changes
            found = self._contents()
            other = _differences(found, self._expected.setdefault(name, found))
            assert not other, f"{name} is not reproducible: {other}"
            if not again:
                shutil.copytree(self.disk, self.folder / "finished" / name)
        return self._changes[name, again]

    def _prepare(self, name: str, again: bool) -> None:
        self._clear()
        if again:
            shutil.copytree(self.folder / "finished" / name, self.disk, dirs_exist_ok=True)

    def try_point(self, point: Point) -> dict[str, Any]:
        """Cause a fault, run the command again, and say what was wrong, if anything."""
        at = 1 + int(point.instant * self._changes_of(point.command, point.again))
        finished = self.folder / "finished" / point.command
        self._prepare(point.command, point.again)
        began = time.monotonic()

        def hook(shared: mmap.mmap) -> Trigger:
            return Trigger(self.disk, shared, at, lambda: self._strike(point.fault), point.delay)

        ended = self._run(point.command, hook, is_faulty=True)
        problems = []
        if "Traceback" in ended.stderr:
            problems.append(f"traceback: {ended.stderr[-1500:]}")
        expected_status = COMMANDS[point.command].statuses[point.fault]
        if ended.status not in (0, *expected_status):
            problems.append(f"exit status {ended.status}: {ended.stderr[-1500:]}")
        (self.disk / "filler").unlink(missing_ok=True)
        if point.again:
            gone = [p for p in COMMANDS[point.command].kept if _bytes(self.disk / p) != _bytes(finished / p)]
            problems += [f"finished file gone: {path}" for path in gone]
        completed = self._run(point.command)
        if completed.status or "Traceback" in completed.stderr:
            problems.append(f"does not complete: {completed.status} {completed.stderr[-1500:]}")
        elif other := _differences(self._contents(), self._expected[point.command]):
            problems.append(f"other result: {other}")
        return {
            **point._asdict(),
            "change": at,
            "status": ended.status,
            "seconds": round(time.monotonic() - began, 1),
            "problems": problems,
        }

    def _strike(self, fault: str) -> None:
        if (number := FAULTS[fault]) is not None:
            os.kill(os.getpid(), number)
        elif self.is_small:
            _fill(self.disk)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _nothing() -> None:
    pass


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _fill(disk: Path) -> None:
    """Take all room that is left."""
    with (disk / "filler").open("wb", buffering=0) as file:
        size = 0
        for step in (2**20, 4096):
            try:
                while True:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
            except OSError:
                continue


def _differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return [
        f"{name}: {'stray' if name not in expected else 'missing' if name not in found else 'other content'}"
        for name in sorted(found | expected)
        if found.get(name) != expected.get(name)
    ]


def draw_points(count: int, seed: int, commands: Collection[str]) -> list[Point]:
    """Draw points at random; every command meets every fault first."""
    random = np.random.default_rng(seed)
    pairs = [(command, fault) for command in commands for fault in FAULTS]
    random.shuffle(pairs)
    chosen = [pairs[i] if i < len(pairs) else pairs[random.integers(len(pairs))] for i in range(count)]
    return [
        Point(
            *(str(command), str(fault)),
            *(float(random.uniform()), round(float(random.exponential(_DELAY)), 3)),
            again=COMMANDS[command].repeats and bool(random.uniform() < 0.3),
        )
        for command, fault in chosen
    ]


def main() -> int:
    """Try all points; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="NAME")
    parser.add_argument("--media", type=int, default=300, help="number of damaged media files")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    args = parser.parse_args()
    is_mounted = _NAMESPACE in os.environ
    began = time.monotonic()
    warm_up(args.commands)
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be removed at the end of every child
        stack.callback(shutil.rmtree, folder)
        if not jax.config.jax_compilation_cache_dir:
            jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
        disk = folder / "disk"
        disk.mkdir()
        if is_mounted:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "none", disk], check=True)
            stack.callback(subprocess.run, ["umount", disk])
        bench = Bench(folder, disk, is_mounted)
        ended = run_forked(lambda: prepare_inputs(bench.inputs, args.commands), folder / "log")
        assert ended.status == 0, ended.stderr
        points = []
        for number, point in enumerate(draw_points(args.points, args.seed, args.commands), start=1):
            points.append(bench.try_point(point))
            print(f"{number}/{args.points}", json.dumps(points[-1]), flush=True)
        media = damaged_media.try_files(args.media, args.seed, folder / "media", run_forked)
    bad = [result for result in points if result["problems"]]
    results = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/faults.py --points {args.points} --seed {args.seed} --media {args.media}",
        "full_disk": "tmpfs that is filled up" if is_mounted else "limit on file sizes: mounting is not permitted here",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "points": len(points),
        "points_with_problems": len(bad),
        "by_command": collections.Counter(point["command"] for point in points),
        "by_fault": collections.Counter(point["fault"] for point in points),
        "media": media,
        "results": points,
    }
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if bad or media["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
