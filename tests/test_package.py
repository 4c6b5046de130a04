"""The distribution: the wheel holds the whole package and runs outside the checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import mimicmotion_jax.cli.main
from mimicmotion_jax.cli.main import COMMANDS
from mimicmotion_jax.video.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mimicmotion_jax"
DATA = ("py.typed", "pages/templates/", "weights/")  # shipped beside the Python modules


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as `python -m build` makes it, from the sdist, with the installed setuptools."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    expected = {name for name in files if name.endswith(".py") or name.startswith(DATA)}
    assert names == {f"mimicmotion_jax/{name}" for name in expected}
    assert "weights/small/params/unet-00000/_METADATA" in expected  # orbax's files have no extension


def test_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == mimicmotion_jax.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    entry_points = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "mimicmotion = mimicmotion_jax.cli.main:main" in entry_points


def test_wheel_runs_outside_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-P", "-m", "mimicmotion_jax", "--version"]  # -P: nothing from the working directory
    version = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert version.split() == ["mimicmotion_jax", mimicmotion_jax.__version__]


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mimicmotion", *arguments])
    mimicmotion_jax.cli.main.main()


def test_usage_lists_the_commands(capsys, monkeypatch):
    run_main(monkeypatch)
    usage = capsys.readouterr().out
    assert all(f"\n  {command} " in usage for command in COMMANDS)


def test_unknown_command_is_one_sentence(capsys, monkeypatch):
    with pytest.raises(SystemExit) as end:
        run_main(monkeypatch, "smaple")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "smaple" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command, capsys, monkeypatch):
    with pytest.raises(SystemExit) as end:
        run_main(monkeypatch, command, "--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mimicmotion {command} ")
    assert f"\n  mimicmotion {command} " in text.partition("examples")[2]


def test_videos_name_the_version():
    assert provenance(0, {})["software"] == f"mimicmotion_jax {mimicmotion_jax.__version__}"


def test_changelog_has_the_version():
    assert f"\n## [{mimicmotion_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
