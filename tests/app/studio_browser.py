"""Shared by the browser's tests: a headless Chromium, and the studio's page as people use it."""

import contextlib
from pathlib import Path

import chromium as installed
from playwright.sync_api import Browser, Page, sync_playwright

SECOND = 1000
LONG = 180 * SECOND


@contextlib.contextmanager
def chromium(*options: str):
    assert installed.PATH, "this test drives Chromium, which is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=installed.PATH, args=["--no-sandbox", *options])
        yield running
        running.close()


@contextlib.contextmanager
def watched_page(browser: Browser, url: str):
    """A page, which asks nobody but the studio and logs no errors."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    elsewhere, errors = [], []
    page.on("request", lambda asked: asked.url.startswith(("data:", "blob:", url)) or elsewhere.append(asked.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not elsewhere
    assert not errors


def give(page: Page, where: str, file: Path) -> None:
    page.set_input_files(f"#{where} input[type=file]", file)


def give_keypoints(page: Page, folder: Path, motion: str = "dance.npz") -> None:
    page.get_by_role("button", name="Keypoints instead of video").click()
    give(page, "keypoints", folder / motion)
    give(page, "pose", folder / "person.npz")


def set_number(page: Page, name: str, value: str) -> None:
    field = page.locator(f"#option-{name}").locator("input, textarea").first
    field.fill(value)
    field.blur()


def frame(page: Page):
    return page.frame_locator("iframe.preflight")


def assert_fits(page: Page, width: int) -> None:
    """Nothing sticks out of a screen of this width sideways."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inner = "document.querySelector('iframe.preflight')?.contentDocument.documentElement"
    assert page.evaluate(f"({inner}?.scrollWidth ?? 0) <= ({inner}?.clientWidth ?? 0)")
