"""Exit status and stderr of scripts: one sentence for mistakes of the user and full disks, a traceback for bugs."""

import errno
import gc
import os
import signal
import sys
import time

import pytest

from mimicmotion_jax.cli.main import main
from mimicmotion_jax.runtime.errors import InputError, explain_disk_error, root_cause, run_script
from mimicmotion_jax.runtime.out_of_memory import is_out_of_memory


def run(main, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_script(main)()
    return stopped.value.code


def raiser(error):
    def main():
        raise error

    return main


def test_ctrl_c_is_not_lost_while_garbage_is_collected(monkeypatch, capsys):
    """Python ignores what is raised in a callback or a finalizer; jax has such a callback."""
    raised = []

    def callback(phase, info):
        if not raised:
            raised.append(phase)
            signal.raise_signal(signal.SIGINT)

    class Slow:
        def __init__(self):
            self.me = self

        def __del__(self):
            time.sleep(0.1)  # the signal is repeated meanwhile

    def main():
        gc.callbacks.append(callback)
        try:
            Slow()
            gc.collect()
            for _ in range(200):
                time.sleep(0.01)
        finally:
            gc.callbacks.remove(callback)

    handler, callbacks = signal.getsignal(signal.SIGINT), list(gc.callbacks)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)  # pytest has one of its own
    try:
        assert run(main, monkeypatch) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
        gc.callbacks[:] = callbacks
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_results_become_the_exit_status(monkeypatch, capsys):
    assert run(lambda: None, monkeypatch) == 0
    assert run(lambda: 3, monkeypatch) == 3
    assert run(raiser(KeyboardInterrupt()), monkeypatch) == 130
    capsys.readouterr()
    assert run(raiser(InputError("size is odd; make it even.")), monkeypatch) == 2
    assert capsys.readouterr().err == "error: size is odd; make it even.\n"


def test_a_traceback_of_user_errors_is_shown_on_request(monkeypatch, capsys):
    assert run(raiser(InputError("size is odd.")), monkeypatch, "--traceback") == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("error: size is odd.\n")


def fill_the_disk():
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (fill_the_disk, "free some space"),
        (lambda: os.stat("/nowhere/x"), "/nowhere/x"),
        (lambda: os.mkdir("/proc/x"), "/proc/x"),
        (lambda: os.listdir(__file__), "test_errors.py"),
        (lambda: os.stat("/" + "x" * 300), "shorter"),
    ],
)
def test_disks_and_paths_of_the_user_are_one_line(work, words, monkeypatch, capsys):
    assert run(work, monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_read_only_place_is_not_told_to_make_room():
    sentence = explain_disk_error(OSError(errno.EROFS, os.strerror(errno.EROFS), "/cdrom/out.mp4"))
    assert "/cdrom/out.mp4" in sentence
    assert "free" not in sentence.replace("/cdrom/out.mp4", "")
    assert "another place" in sentence


def test_a_disk_that_tensorstore_finds_full_is_neither_a_bug_nor_a_lack_of_memory(monkeypatch, capsys):
    words = "RESOURCE_EXHAUSTED: Error writing in OCDBT database: No space left on device [os_error_code='28']"
    assert run(raiser(ValueError(words)), monkeypatch) == 2
    assert "free some space" in capsys.readouterr().err
    assert not is_out_of_memory(ValueError(words))
    assert is_out_of_memory(ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))


@pytest.mark.parametrize(
    "error",
    [
        OSError("no number"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError(errno.EBADF, "Bad file descriptor"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),  # about no path
        TimeoutError("waited"),
        KeyError("x"),
        ValueError("too many values to unpack"),
    ],
)
def test_bugs_keep_their_traceback(error, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(type(error)) as caught:
        run_script(raiser(error))()
    assert caught.value is error


def test_the_root_cause_is_one_short_line():
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("  \nno such key.\nmore")
    assert root_cause(outer) == "no such key"
    assert root_cause(KeyError()) == "KeyError"
    assert len(root_cause(ValueError("x" * 500))) == 200


@pytest.mark.parametrize("command", ["sample", "train", "train-vae", "prepare", "convert", "evaluate"])
def test_every_command_has_the_option(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mimicmotion", command, "--help"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert "--traceback" in capsys.readouterr().out


def test_a_command_shows_the_traceback_of_an_input_error(tmp_path, monkeypatch, capsys):
    arguments = ["--svd", "-", "--mimicmotion", "-", "--output", str(tmp_path / "x"), "--traceback"]
    monkeypatch.setattr(sys, "argv", ["mimicmotion", "convert", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: - is neither a folder")
