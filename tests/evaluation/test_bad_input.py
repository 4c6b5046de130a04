"""Bad input to `mimicmotion evaluate` ends in one sentence."""

import importlib
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from mimicmotion_jax import InputError
from mimicmotion_jax.cli import evaluate
from mimicmotion_jax.runtime.atomic_files import exclusive

ROOT = Path(__file__).resolve().parents[2]


def empty(tmp: Path, data: Path) -> list:
    (tmp / "nothing").mkdir()
    return ["--data", tmp / "nothing"]


def two_of_a_name(tmp: Path, data: Path) -> list:
    shutil.copytree(data, tmp / "data")
    (tmp / "data" / "a.mp4").write_bytes(b"")
    return ["--data", tmp / "data"]


def missing_counterpart(tmp: Path, data: Path) -> list:
    shutil.copytree(data / "a", tmp / "videos" / "a")
    return ["--generated", tmp / "videos"]


def no_counterparts(tmp: Path, data: Path) -> list:
    (tmp / "videos").mkdir()
    return ["--generated", tmp / "videos"]


CASES = {
    "no data": (lambda tmp, data: ["--data", tmp / "no"], "there is no folder"),
    "empty folder": (empty, "holds no sequences"),
    "two of a name": (two_of_a_name, "have the same name"),
    "sequences of the protocol": (lambda tmp, data: ["--protocol", "tiktok"], "lacks 335, 336, 337, 338, 339, 340"),
    "unknown protocol": (lambda tmp, data: ["--protocol", "mine"], "choose tiktok, disco, synthetic"),
    "missing counterpart": (missing_counterpart, "holds no video for b"),
    "no counterparts": (no_counterparts, "holds no videos"),
    "no generated": (lambda tmp, data: ["--generated", tmp / "no"], "there is no folder"),
    "remote data": (lambda tmp, data: ["--data", "gs://bucket/x"], "--data gs://bucket/x must be on a local disk"),
    "remote videos": (lambda tmp, data: ["--generated", "gs://bucket/x"], "--generated gs://bucket/x must be on"),
    "remote output": (lambda tmp, data: ["--output", "gs://bucket/x"], "--output gs://bucket/x must be on a local"),
    "remote weights": (lambda tmp, data: ["--i3d", "gs://bucket/x.pt"], "--i3d gs://bucket/x.pt must be on a local"),
    "missing weights": (lambda tmp, data: ["--i3d", tmp / "i3d.pt"], "there is no weight file"),
    "both": (lambda tmp, data: ["--checkpoint", tmp], "either --checkpoint DIR"),
    "unused option": (lambda tmp, data: ["seed=3"], "seed has no effect with --generated"),
    "unknown option": (lambda tmp, data: ["sed=3"], "did you mean 'seed'"),
    "output is input": (lambda tmp, data: ["--output", data / "results"], "which is an input"),
    "output is a file": (lambda tmp, data: ["--output", Path(__file__)], "is a file"),
}


def arguments(data: Path, output: Path, more: list) -> list[str]:
    common = ["--generated", data, "--data", data, "--protocol", "synthetic", "--output", output]
    return list(map(str, [*common, *more]))


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence(case, data, tmp_path):
    make, message = CASES[case]
    with pytest.raises(InputError) as caught:
        evaluate.main(arguments(data, tmp_path / "out", make(tmp_path, data)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def with_checkpoint(checkpoint: Path | str, data: Path, output: Path, *more: str) -> list[str]:
    command = ["--checkpoint", checkpoint, "--data", data, "--protocol", "synthetic", "--output", output, *more]
    return list(map(str, command))


def test_a_folder_that_is_not_a_checkpoint(data, tmp_path):
    with pytest.raises(InputError, match="convert"):
        evaluate.main(with_checkpoint(tmp_path, data, tmp_path / "out"))


def test_a_remote_checkpoint_keeps_its_address(data, tmp_path, monkeypatch):
    """Without the gcs extra, the message has the address as it was typed."""
    for package in ("gcsfs", "tensorflow"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "gcs", raising=False)
    with pytest.raises(InputError, match=r"^gs://bucket/x needs"):
        evaluate.main(with_checkpoint("gs://bucket/x", data, tmp_path / "out"))


def test_a_refused_size_leaves_the_folder_to_other_protocols(data, tmp_path):
    weights = ROOT / "mimicmotion_jax/weights/small"
    with pytest.raises(InputError, match="videos of 100x100 cannot be generated"):
        evaluate.main(with_checkpoint(weights, data, tmp_path / "out", "width=100", "height=100"))
    assert not (tmp_path / "out").exists()


def test_a_second_run_on_one_output_is_refused(data, tmp_path, score):
    with exclusive(tmp_path / "out"), pytest.raises(InputError, match="being written already"):
        score(data, data, tmp_path / "out")


def test_the_script_exits_with_2(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments(tmp_path / "no", tmp_path / "out", [])])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "evaluate.py"), run_name="__main__")
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1].startswith(f"error: there is no folder {tmp_path / 'no'}")
