"""Files and folders, local or gs://: output that appears whole or not at all, and hashes."""

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.experimental import multihost_utils
from tqdm import tqdm

from mimicmotion_jax.runtime.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: outputs are not locked there
    fcntl = None

_SPACE_MARGIN = 1.02  # indices and metadata beside the arrays
_BLOCK = 2**22  # bytes read at once
_STORES = {"gs": "gcs", "s3": "s3", "az": "az", "hf": "hf"}  # that epath knows, by fsspec's names


def absolute_path(directory: epath.PathLike) -> epath.Path:
    """Resolve `directory` to an absolute path, as orbax requires; a remote path is one already.

    Raises:
        InputError: remote storage that is unknown, or whose package is not installed.
    """
    store, separator, _ = str(directory).partition("://")
    if not separator:
        return epath.Path(directory).expanduser().resolve()
    _check_store(store, str(directory))
    return epath.Path(directory)


def _check_store(store: str, directory: str) -> None:
    if store not in _STORES:
        raise InputError(f"{directory} is on unknown storage; give a local folder or gs://.")
    if importlib.util.find_spec("tensorflow"):
        return  # epath reads and writes with that
    import fsspec  # what epath uses otherwise

    try:
        fsspec.get_filesystem_class(_STORES[store])
    except ImportError as error:
        reason = 'pip install "mimicmotion_jax[gcs]"' if store == "gs" else str(error)
        raise InputError(f"{directory} needs a package that is not installed: {reason}.") from None


@contextlib.contextmanager
def exclusive(path: epath.PathLike) -> Iterator[None]:
    """Be the only writer of an output, a file or a folder, while the block runs.

    The lock (flock) is on a hidden file `.NAME.lock` beside the output; on `.lock` in it where it is a folder and no
    file can be created beside it. Missing folders are made for it. Nothing remains, and a killed process's lock file
    blocks nobody. It is not re-entrant: the block must not enter `exclusive` for the same path again (`open_writer` and
    `atomic_directory` do not, they lock their temporary folder). In a distributed run only one process may enter it.

    There is no lock on remote storage (gs://), nor on file systems that have none.

    Raises:
        InputError: another process, or another block in this one, is writing `path`; or the place cannot be written to.
    """
    if "://" in str(path):
        yield
        return
    with _locked(Path(path).expanduser(), str(path)):
        yield


@contextlib.contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """Make a hidden folder beside `target` for one writer's unfinished work; remove it when the block ends.

    It is in the same file system as `target`, so that what it holds can take that name in one step. What a killed
    process left in it goes first; nothing else is ever removed.

    Raises:
        InputError: another process, or another block in this one, is writing `target`; or the place cannot be written
            to.
        OSError: a full disk, or remains that this user may not remove.
    """
    folder = hidden_path(target, "unfinished")
    with _locked(folder, str(target)) as is_locked:
        if folder.exists():
            if not is_locked:  # nothing tells the work of a killed process from that of a live one
                raise InputError(f"{folder} is another process's work or the remains of one; remove it if none runs.")
            shutil.rmtree(folder)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_remains(target: epath.PathLike) -> None:
    """Remove what a killed writer of the local file or folder `target` left beside it, if nobody is writing it now."""
    if "://" not in str(target):
        with contextlib.suppress(InputError, OSError), working_folder(Path(target)):
            restore_directory(target)


def hidden_path(target: epath.PathLike, kind: str) -> Any:
    """Name beside `target`, for unfinished work of this `kind`, that nobody else uses."""
    target = target if isinstance(target, Path) else epath.Path(target)
    return target.with_name(f".{target.name}.mimicmotion-{kind}")


@contextlib.contextmanager
def _locked(path: Path, shown: str) -> Iterator[bool]:
    """Lock `path`, called `shown` in messages; False on systems that have no locks."""
    created: list[Path] = []
    try:
        target = path.resolve()
        inside = target.is_mount() or (target.is_dir() and not os.access(target.parent, os.W_OK))
        lock = target / ".lock" if inside else target.with_name(f".{target.name}.lock")
        created = [folder for folder in lock.parents if not folder.exists()]
        descriptor, is_locked = _acquire(lock)
    except BlockingIOError:
        raise InputError(
            f"{shown} is being written already, by another process or job; wait until it is done or choose another "
            "output."
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"cannot write {shown}: a folder in this path is a file; choose another output.") from None
    except OSError as error:
        _remove_empty(created)
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"cannot write {shown}: this name is too long; choose a shorter one.") from None
        raise InputError(f"cannot write {shown}: {error.strerror or error}; choose another output.") from None
    try:
        yield is_locked
    finally:
        lock.unlink(missing_ok=True)  # before the lock is released, so that nobody holds a file without a name
        os.close(descriptor)
        _remove_empty(created)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, up to the first that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _acquire(lock: Path) -> tuple[int, bool]:
    """Create and lock a file. Returns its descriptor, and False if the system has no locks.

    Raises:
        BlockingIOError: somebody else has locked it.
        OSError: it cannot be created.
    """
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its folder has just been removed by another block that ended
            continue
        try:
            if not _flock(descriptor):
                return descriptor, False
            # Whoever held the lock before may have removed the file in the meantime.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                    return descriptor, True
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            return False
        raise
    return True


def write_file(path: epath.PathLike, content: bytes) -> None:
    """Write a file, or replace it, in one step; where that fails, an earlier one is untouched.

    A process that is killed leaves `.NAME.tmp`, which the next writer of the file takes up. Two at once do no harm.

    Raises:
        OSError: no such folder, no permission, no room.
    """
    path = epath.Path(path)
    unfinished = path.parent / f".{path.name}.tmp"
    with contextlib.ExitStack() as stack:
        if fcntl is not None and "://" not in str(path):
            descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, descriptor)
            try:
                _flock(descriptor)
                is_ours = os.path.samestat(os.fstat(descriptor), os.stat(unfinished))
            except (BlockingIOError, FileNotFoundError):
                is_ours = False
            if not is_ours:  # another writer has it, or had it a moment ago
                unfinished = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def sha256_file(path: epath.PathLike) -> str:
    """Compute the SHA-256 of a file, as a hex string.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_directory(directory: epath.PathLike, *, marker: str, overwrite: bool = False) -> Iterator[epath.Path]:
    """Give a temporary folder that becomes `directory` when the block ends, and vanishes when it fails.

    An earlier folder stays, whole, until then (see `replace_directory`). Two processes cannot do this at once.

    Args:
        directory: must not exist or be empty, unless `overwrite`.
        marker: a file that every folder of this kind has; only a folder that has it is ever overwritten.
        overwrite: replace an existing folder.

    Raises:
        InputError: `directory` is taken, cannot be written or is being written by another process.
    """
    target = absolute_path(directory)
    temporary = hidden_path(target, "unfinished")
    first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        try:
            if first:
                stack.enter_context(_remote_folder(temporary) if "://" in str(target) else working_folder(Path(target)))
                restore_directory(target)
            multihost_utils.sync_global_devices(f"created {temporary}")
            _check_free(target, marker, overwrite)
        except OSError as error:
            raise InputError(f"cannot write to {target}: {error.strerror or error}; choose another output.") from None
        yield temporary
        multihost_utils.sync_global_devices(f"filled {temporary}")
        if first:
            replace_directory(temporary, target, marker)
        multihost_utils.sync_global_devices(f"renamed {temporary}")


@contextlib.contextmanager
def _remote_folder(folder: epath.Path) -> Iterator[None]:
    folder.rmtree(missing_ok=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        folder.rmtree(missing_ok=True)


def _check_free(target: epath.Path, marker: str, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; choose a folder as output.")
    if target.exists() and any(target.iterdir()):
        if not overwrite:
            raise InputError(f"{target} exists already; choose another output or say --overwrite.")
        if not (target / marker).exists():
            raise InputError(
                f"{target} is not an earlier output (it has no {marker}) and is not overwritten; remove it or choose "
                "another output."
            )


def replace_directory(new: epath.PathLike, target: epath.PathLike, marker: str | None = None) -> None:
    """Replace the folder `target`, which may exist, by the complete folder `new`.

    Whenever it is killed, `restore_directory` finds one of the two whole on a local disk. Object stores copy file by
    file: there the marker is removed first and written last, so that half a folder has none.

    Args:
        new: in the same file system.
        target: local or gs://.
        marker: a file, relative to the folder, without which a folder counts as none; gs:// needs it.

    Raises:
        OSError: it cannot be done; `target` is as it was, on a local disk.
    """
    new, target = epath.Path(new), epath.Path(target)
    if "://" in str(target):
        if marker is None:
            raise ValueError("a remote folder is replaced with the help of a marker; give one")
        _replace_remote(new, target, marker)
        return
    # A folder with something in it cannot be replaced in one step, and removing gigabytes takes its time.
    earlier = _earlier(target)
    restore_directory(target)
    if target.exists():
        target.rename(earlier)
    try:
        new.rename(target)
    finally:
        restore_directory(target)


def restore_directory(target: epath.PathLike) -> None:
    """Finish or undo a `replace_directory` that was killed; to be called before looking at `target`.

    A missing `target` is replaced by the earlier folder.

    Raises:
        OSError: no permission.
    """
    target = epath.Path(target)
    earlier, removed = _earlier(target), hidden_path(target, "removed")
    removed.rmtree(missing_ok=True)
    if not earlier.exists():
        return
    if not target.exists():
        earlier.rename(target)
        return
    # Another name first: what is half removed must never come back.
    earlier.rename(removed)
    removed.rmtree()


def _earlier(target: epath.Path) -> epath.Path:
    return hidden_path(target, "earlier")


def _replace_remote(new: epath.Path, target: epath.Path, marker: str) -> None:
    (target / marker).unlink(missing_ok=True)
    target.rmtree(missing_ok=True)
    content = (new / marker).read_bytes()
    (new / marker).unlink()
    new.rename(target)
    (target / marker).write_bytes(content)


def check_space(directory: epath.PathLike, needed: int, what: str = "the weights") -> None:
    """Check that `needed` bytes fit where `directory` will be; its parent must exist. Remote storage is unlimited.

    Args:
        directory: local or gs://.
        needed: bytes.
        what: what takes them, in the plural, for the message.

    Raises:
        InputError: too little space.
    """
    if "://" in str(directory):
        return
    target = absolute_path(directory)
    free = shutil.disk_usage(target.parent).free
    if free < needed * _SPACE_MARGIN:
        raise InputError(
            f"{what} take {format_bytes(needed)} and there is room for {format_bytes(free)} at {target.parent}; "
            "free some or choose another output."
        )


def format_bytes(number: int) -> str:
    """Write a number of bytes with three significant digits, such as "4.27GB" or "310kB"."""
    return tqdm.format_sizeof(number, "B")
