"""Folders and files that appear whole or not at all, whenever the process is killed; paths, room and hashes."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from etils import epath
from object_store import Killed, ObjectStore

from mimicmotion_jax.convert import convert, export_torch
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.runtime.atomic_files import (
    absolute_path,
    atomic_directory,
    check_space,
    exclusive,
    replace_directory,
    sha256_file,
    write_file,
)
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.checkpoints import RunCheckpoints

ROOT = Path(__file__).resolve().parents[2]


def test_paths_become_absolute_and_remote_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(absolute_path("a/../b")) == str(tmp_path / "b")
    assert str(absolute_path("gs://bucket/run/weights")) == "gs://bucket/run/weights"
    assert str(absolute_path("gs://bucket/run/weights").parent) == "gs://bucket/run"


@pytest.mark.parametrize(
    "use",
    [
        absolute_path,
        lambda path: enter(atomic_directory(path, marker="a")),
        lambda path: export_torch(path, "out"),
        lambda path: convert("svd", "none", path),
        lambda path: VideoFolder(path),
        lambda path: prepare(VideoFolder("."), path, PrepareConfig()),
        lambda path: RunCheckpoints(path, 1),
    ],
)
def test_a_missing_client_of_a_store_is_one_sentence(use, tmp_path, monkeypatch):
    """An installation without extras has no package for gs://."""
    monkeypatch.chdir(tmp_path)
    for package in ("gcsfs", "tensorflow"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gcs", raising=False)
    with pytest.raises(InputError, match=r'^gs://bucket/x needs .*: pip install "mimicmotion_jax\[gcs\]"\.$'):
        use("gs://bucket/x")
    with pytest.raises(InputError, match=r"^http://host/x is on unknown storage; give a local folder"):
        use("http://host/x")
    assert not list(tmp_path.iterdir())


def enter(context):
    with context:
        pass


def test_room_is_looked_at_before_writing(tmp_path):
    check_space(tmp_path / "out", 1000)
    check_space("gs://bucket/out", 10**18)
    with pytest.raises(InputError, match=r"take 1\.00EB and there is room for [\d.]+[MGT]B at .*; free some"):
        check_space(tmp_path / "out", 10**18)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "a", marker="m") as temporary:
        temporary.mkdir()
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()  # empty: may be filled
    with atomic_directory(tmp_path / "a", marker="m") as temporary:
        (temporary / "m").write_text("1")
        assert not list((tmp_path / "a").iterdir())
    with pytest.raises(InputError, match="exists already"), atomic_directory(tmp_path / "a", marker="m"):
        pass
    with pytest.raises(FileExistsError), atomic_directory(tmp_path / "a", marker="m", overwrite=True) as temporary:
        temporary.mkdir()
    assert (tmp_path / "a/m").read_text() == "1"
    with atomic_directory(tmp_path / "a", marker="m", overwrite=True) as temporary:
        (temporary / "m").write_text("2")
    assert [(path.name, (path / "m").read_text()) for path in tmp_path.iterdir()] == [("a", "2")]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    write_file(tmp_path / "a", b"first")
    write_file(tmp_path / "a", b"second")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # fails in the middle, as a full disk does
    try:
        with pytest.raises(OSError, match="File too large"):
            write_file(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"second")]


def test_a_killed_writer_leaves_nothing_for_long_and_two_at_once_do_no_harm(tmp_path):
    (tmp_path / ".a.tmp").write_bytes(bytes(1000))  # what a killed process leaves
    write_file(tmp_path / "a", b"first")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    contents = [bytes([number]) * 50_000 for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: [write_file(tmp_path / "a", content) for _ in range(20)], contents))
    assert (tmp_path / "a").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


HOLD = """
import sys, time
from mimicmotion_jax.runtime.atomic_files import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", ["a.mp4", "run", "new/folder/a.mp4"])
def test_one_writer_of_an_output(tmp_path, name):
    path = tmp_path / name
    if name == "run":
        path.mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with exclusive(path), exclusive(path.with_name("other")):
        for same in (path, tmp_path / "link" / ".." / tmp_path.name / name):
            with (
                pytest.raises(InputError, match=r"^[^;]* is being written already, .*; wait [^;.]*\.$"),
                exclusive(same),
            ):
                pass
        with ThreadPoolExecutor() as pool, pytest.raises(InputError, match="being written already"):
            pool.submit(enter, exclusive(path)).result()
    with pytest.raises(ZeroDivisionError), exclusive(path):
        raise ZeroDivisionError
    assert sorted(tmp_path.rglob("*")) == before


def test_another_process_holds_an_output_until_it_dies(tmp_path):
    path = tmp_path / "new" / "a.mp4"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="being written already"), exclusive(path):
            pass
        holder.kill()
    assert path.parent.exists()
    with exclusive(path):
        path.write_text("done")
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_a_mount_point_is_locked_inside():
    with exclusive("/dev/shm"):
        assert Path("/dev/shm/.lock").exists()
    assert not Path("/dev/shm/.lock").exists()


def test_places_that_cannot_be_locked(tmp_path):
    with exclusive("gs://bucket/a"), exclusive("gs://bucket/a"):  # remote storage has no locks
        pass
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / ("x" * 300), "/proc/nowhere/a"):
        with pytest.raises(InputError, match="cannot write"), exclusive(path):
            pass


def test_hash_of_a_file(tmp_path):
    content = bytes(range(256)) * 2**15 + b"abc"  # more than is read at once
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(str(tmp_path / "a")) == hashlib.sha256(content).hexdigest()


# Overwrites FOLDER/N/out for N from 0 on, in a child that is killed just before the (N + 1)th change to any folder.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from mimicmotion_jax.runtime.atomic_files import atomic_directory
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
folder = Path(sys.argv[1])

def overwrite(allowed):
    def count(event, arguments):
        nonlocal allowed
        if event in CHANGES:
            if not allowed:
                os.kill(os.getpid(), signal.SIGKILL)
            allowed -= 1
    sys.addaudithook(count)
    with atomic_directory(folder / "out", marker="m", overwrite=True) as temporary:
        for name in ("m", "a", "b"):
            (temporary / name).write_text("new")

for number in range(100):
    shutil.copytree(folder / "earlier", folder / str(number) / "out")
    folder = folder / str(number)
    child = os.fork()
    if not child:
        overwrite(number)
        os._exit(0)
    folder = folder.parent
    if not os.waitpid(child, 0)[1]:
        break
print(number)
"""


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_overwriting_may_be_killed_at_any_moment(tmp_path):
    earlier, new = dict.fromkeys("mab", "earlier"), dict.fromkeys("mab", "new")
    (tmp_path / "earlier").mkdir()
    for name, text in earlier.items():
        (tmp_path / "earlier" / name).write_text(text)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    kills = int(run.stdout)
    assert 6 < kills < 99
    seen = []
    for number in range(kills + 1):
        out = tmp_path / str(number) / "out"
        if out.exists():
            assert contents(out) in (earlier, new)
        with pytest.raises(RuntimeError), atomic_directory(out, marker="m", overwrite=True):
            raise RuntimeError("the next run does not get far")
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        seen.append(contents(out))
        assert seen[-1] in (earlier, new)
    assert (seen[0], seen[-1]) == (earlier, new)


def test_a_folder_that_cannot_be_moved_leaves_the_earlier_one(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m").write_text("earlier")
    with pytest.raises(FileNotFoundError):
        replace_directory(tmp_path / "missing", tmp_path / "out")
    assert [(path.name, contents(path)) for path in tmp_path.iterdir()] == [("out", {"m": "earlier"})]


@pytest.mark.usefixtures("bucket")
def test_half_a_remote_folder_has_no_marker():
    earlier, new = dict.fromkeys("mab", "earlier"), dict.fromkeys("mab", "new")
    seen = []
    for allowed in itertools.count():
        root = epath.Path(f"gs://bucket/{allowed}")
        for folder, files in (("out", earlier), (".out.partial", new)):
            (root / folder).mkdir(parents=True)
            for name, text in files.items():
                (root / folder / name).write_text(text)
        ObjectStore.allowed = allowed
        with contextlib.suppress(Killed):
            replace_directory(root / ".out.partial", root / "out", "a")  # the first that is copied
        rest, ObjectStore.allowed = ObjectStore.allowed, 10**9
        if (root / "out" / "a").exists():
            seen.append(contents(root / "out"))
            assert seen[-1] in (earlier, new)
        if rest:
            break
    assert (seen[0], seen[-1]) == (earlier, new)
    assert allowed > 6
    assert [path.name for path in root.iterdir()] == ["out"]
