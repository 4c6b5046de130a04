"""The distribution: the wheel holds the whole package and runs outside the checkout; the TPU compiler suits jax."""

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

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mimicmotion_jax"
DATA = ("py.typed", "weights/small/")  # shipped beside the Python modules


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as `python -m build` makes it, from the sdist, with the installed setuptools."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def run_wheel(wheel, tmp_path_factory):
    """Run `python -m mimicmotion_jax ARGS` with the unpacked wheel in place of the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    wheel.extractall(folder / "site")
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "JAX_PLATFORMS": "cpu"}

    def run(*args):
        command = [sys.executable, "-P", "-m", "mimicmotion_jax", *args]  # -P: not from the working directory
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


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


def test_wheel_runs_outside_the_checkout(run_wheel):
    version = run_wheel("--version")
    assert version.stdout.split() == ["mimicmotion_jax", mimicmotion_jax.__version__]
    usage = run_wheel()
    assert usage.returncode == 0
    assert all(f"  {command} " in usage.stdout for command in COMMANDS)
    unknown = run_wheel("smaple")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: unknown command 'smaple'")
    assert unknown.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mimicmotion", command, "--help"])
    with pytest.raises(SystemExit) as end:
        mimicmotion_jax.cli.main.main()
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mimicmotion {command} ")
    assert f"\n  mimicmotion {command} " in text.partition("examples:")[2]


def test_changelog_has_the_version():
    assert f"\n## [{mimicmotion_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_profiler_traces_with_libtpu_installed(tmp_path):
    """A libtpu newer than the one of jax's `tpu` extra crashes the process here, also on a machine without a TPU."""
    script = f"import jax\nwith jax.profiler.trace({str(tmp_path)!r}):\n    jax.numpy.ones(3).sum().block_until_ready()"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert list(tmp_path.rglob("*.xplane.pb"))
