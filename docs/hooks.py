"""Hooks of the documentation site: pages that lie outside docs/, and links that lead out of docs/.

The Markdown files are written for GitHub, where links are relative to the file. Here a link to another page stays in
the site, and one to any other file of the repository leads to GitHub.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "comfyui.md": "comfyui/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "responsible_use.md": "RESPONSIBLE_USE.md",
    "security.md": "SECURITY.md",
}
"""Pages that are not in docs/, by their name in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name, path in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links of the site, or to GitHub."""
    source = ROOT / OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return re.sub(r"(?<=\]\()[^)\s]+(?=\))", lambda match: _site_link(match[0], source, config.repo_url), markdown)


def _site_link(link: str, source: Path, repository: str) -> str:
    path, hash_sign, heading = link.partition("#")
    if not path or "://" in path:
        return link
    target = Path(os.path.normpath(source.parent / path)).relative_to(ROOT).as_posix()
    pages = {path: name for name, path in OUTSIDE.items()}
    if target in pages or target.startswith("docs/"):
        return pages.get(target, target.removeprefix("docs/")) + hash_sign + heading
    return f"{repository}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
