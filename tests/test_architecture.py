"""Rules of the house: imports go down, the page lists the rooms, docstrings are plain English, named paths exist."""

import ast
import graphlib
import importlib.util
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for folder in ("mimicmotion_jax", "tests", "benchmarks", "comfyui", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
] + sorted(ROOT.glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STILTED = {"Of", "That", "As", "What", "Whether", "Where", "How", "From", "So", "Like"}


@pytest.fixture(scope="module")
def architecture():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_go_down(architecture):
    floors = {room: number for number, floor in enumerate(architecture.FLOORS) for room in floor}
    product = {room: used for room, used in architecture.imports().items() if room in floors}
    upwards = [(room, used) for room in product for used in product[room] & set(floors) if floors[used] < floors[room]]
    assert not upwards


def test_no_rooms_import_each_other(architecture):
    graph = {room: used for room, used in architecture.imports().items() if not room.startswith("__")}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_tools_are_imported_by_the_command_line_only(architecture):
    tools = set(architecture.TOOLS)
    assert not [room for room, used in architecture.imports().items() if used & tools and room not in {"cli", *tools}]


def test_few_modules_are_outside_rooms(architecture):
    assert len(list(architecture.PACKAGE.glob("*.py"))) <= 6


def test_the_page_lists_the_rooms(architecture):
    listed = re.findall(r"^\| \w+ \| `(\w+)(?:/|\.py)` \|", architecture.PAGE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(architecture.imports()) - set(architecture.HIDDEN))
    assert listed == [room for floor in (*architecture.FLOORS, architecture.TOOLS) for room in floor]


def docstrings(path):
    """Line and text of all docstrings in a file, those of attributes included."""
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""
        for before, after in itertools.pairwise(body) if isinstance(body, list) else ():
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                yield after.lineno, after.value.value if isinstance(after.value, ast.Constant) else ""


def test_docstrings_begin_in_plain_english():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in SOURCES
        for line, text in docstrings(path)
        if isinstance(text, str) and text and text.split()[0].strip("`,.:") in STILTED
    ]
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_named_in_the_documents_exist(page):
    """Scripts, tests, modules (relative to the repository or to the package) and results."""
    named = re.findall(r"[\w./-]+\.(?:py|json|yaml|png)\b", page.read_text())
    bases = (ROOT, ROOT / "mimicmotion_jax", ROOT / "benchmarks", ROOT / "benchmarks" / "results", page.parent)
    inside = {name for name in named if "/" in name and any((base / name.split("/")[0]).is_dir() for base in bases)}
    missing = {name for name in inside if not any((base / name).exists() for base in bases)}
    assert not missing
