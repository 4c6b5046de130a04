"""The documentation: its Python runs, links and names lead somewhere, every page is in the navigation of the site."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path

import pytest
import yaml
from flax import nnx
from PIL import Image
from tiny import FEW, SIDE

import mimicmotion_jax
from mimicmotion_jax.checkpoint import save_checkpoint
from mimicmotion_jax.inference.job_list import OFFICIAL_NAMES
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "comfyui" / "README.md"]


def test_readme_example_runs(tiny_pipeline, tmp_path):
    """Run the README's Python with other file names, one step, and a reference pose that is given, not detected."""
    source = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    networks = {name: nnx.state(getattr(tiny_pipeline, name)) for name in NETWORKS}
    size = FEW | {"width": SIDE, "height": SIDE}
    save_checkpoint(tmp_path / "checkpoint", tiny_pipeline.config, networks, sampling=size, progress=False)
    picture, pose = demo_reference(64, 64)
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "person.npz")
    save_keypoints(demo_motion(13, 15, 64, 64), tmp_path / "dance.npz")
    image, motion, image_pose = (str(tmp_path / name) for name in ("person.png", "dance.npz", "person.npz"))
    for written, here in {
        '"checkpoints/mimicmotion"': repr(str(tmp_path / "checkpoint")),
        '"person.jpg", "dance.mp4"': f"{image!r}, {motion!r}, image_pose={image_pose!r}",
        '"person.mp4"': repr(str(tmp_path / "person.mp4")),
        "num_inference_steps=25": "num_inference_steps=1",
    }.items():
        assert written in source
        source = source.replace(written, here)
    names = {}
    exec(source, names)
    assert names["video"].frames.shape == (13, 64, 64, 3)
    saved = open_video(tmp_path / "person.mp4")
    assert (saved.num_frames, saved.fps, saved.width, saved.height) == (13, 15, 64, 64)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), f"{document.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings]


def pages_of(navigation):
    """File names in a navigation of MkDocs, in order."""
    if isinstance(navigation, str):
        return [navigation]
    return [
        page
        for part in (navigation.values() if isinstance(navigation, dict) else navigation)
        for page in pages_of(part)
    ]


def test_every_page_is_in_the_navigation_of_the_site():
    pages = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    hooks = ast.parse((ROOT / "docs" / "hooks.py").read_text())
    outside = next(
        ast.literal_eval(node.value)
        for node in hooks.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "OUTSIDE"
    )
    assert all((ROOT / path).is_file() for path in outside.values())
    assert {ROOT / path for path in outside.values()} == set(DOCUMENTS) - set(ROOT.glob("docs/*.md"))
    assert sorted(pages) == sorted([*outside, *(path.name for path in ROOT.glob("docs/*.md"))])


def test_api_page_names_what_exists_and_all_that_the_package_exports():
    named = re.findall(r"^::: mimicmotion_jax\.(\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert set(mimicmotion_jax.__all__) - {"__version__"} <= set(named)
    for name in named:
        module, _, attribute = f"mimicmotion_jax.{name}".rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__


def test_reference_gives_every_option_and_default():
    rows = re.findall(r"^\| (`\w+`.*?) \| (.*?) \|.*\|.*\|$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
    table = {name: default.strip("`") for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    expected = {field.name: field.default for field in dataclasses.fields(GenerateConfig)}
    assert table == {name: shown(default) for name, default in expected.items()}


def test_reference_gives_the_official_names():
    rows = re.findall(r"^\| `(\w+)` \| YAML \| `(\w+)`", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
    inputs = {"ref_video_path": "motion", "ref_image_path": "image"}
    assert dict(rows) == OFFICIAL_NAMES | inputs


def shown(default):
    """Format a default as the reference does."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)
