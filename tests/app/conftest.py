"""Tests in a browser are collected where Playwright and Chromium are installed, and always where they are asked for."""

import shutil
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_ignore_collect(collection_path, config):
    asked = "browser" in (config.option.markexpr or "") or any("_browser" in arg for arg in config.args)
    if (
        collection_path.name.endswith("_browser.py")
        and not asked
        and (CHROMIUM is None or find_spec("playwright") is None)
    ):
        return True
    return None


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "this test drives Chromium, which is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()
