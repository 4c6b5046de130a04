"""The browser's test is collected where Playwright and Chromium are installed, and always where it is asked for."""

import shutil
from importlib.util import find_spec

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_ignore_collect(collection_path, config):
    asked = "browser" in (config.option.markexpr or "") or any("test_browser" in arg for arg in config.args)
    if (
        collection_path.name == "test_browser.py"
        and not asked
        and (CHROMIUM is None or find_spec("playwright") is None)
    ):
        return True
    return None
