"""Chromium for the browser's tests: they are collected where it and Playwright are installed, and where asked for."""

import shutil
from importlib.util import find_spec

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IS_INSTALLED = PATH is not None and find_spec("playwright") is not None
HEADER = (
    f"browser: {PATH}"
    if IS_INSTALLED
    else "browser: tests/app/test_*browser.py are left out, Chromium or Playwright is not installed (docs/studio.md)"
)
