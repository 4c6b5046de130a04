"""The notebooks in examples/: they parse, use public names only, and run from top to bottom on the small model."""

import ast
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import mimicmotion_jax

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
PUBLIC = {f"mimicmotion_jax.{name}" for name in mimicmotion_jax.__all__} | set(
    re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
)

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def sources(path, kind):
    """Texts of the cells of a kind; commands of the shell (`!…`) are left out."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]
    return ["".join(line for line in cell["source"] if not line.startswith("!")) for cell in cells]


def test_code_parses_and_uses_public_names(path):
    used = {
        f"{node.module}.{alias.name}"
        for source in sources(path, "code")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "mimicmotion_jax"
        for alias in node.names
    }
    assert used, "a notebook about the package imports it"
    assert not used - PUBLIC  # tests/test_readme.py imports all of these


def test_first_cell_opens_in_colab_and_second_installs(path):
    homepage = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
    repository = homepage.removeprefix("https://github.com/")
    badge = f"(https://colab.research.google.com/github/{repository}/blob/main/examples/{path.name})"
    assert badge in sources(path, "markdown")[0]
    assert f"git+{homepage}" in sources(path, "code")[0]


def test_outputs_are_small_and_whole(path):
    """Less than 1 MB with its pictures; every cell ran in order, without an error, and shows no path of a machine."""
    text = path.read_text()
    assert len(text) < 1e6
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    shown = "".join("".join(output.get("text", [])) for output in outputs) + "".join(sources(path, "code"))
    assert not re.search(r"/(home|root|opt|tmp|work)/", shown)


@pytest.mark.slow
def test_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    from nbmake.nb_run import NotebookRun

    monkeypatch.delenv("XLA_FLAGS")  # on the devices that users have
    copy = Path(shutil.copy(path, tmp_path))
    result = NotebookRun(copy, default_timeout=1200).execute()
    assert result.error is None, result.error
    written = {"quickstart": "quickstart.mp4", "train_on_your_videos": "train_on_your_videos/run/model/manifest.json"}
    assert (tmp_path / "outputs" / written[path.stem]).is_file()
