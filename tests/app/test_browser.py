"""The studio in a real browser, as a newcomer uses it: `mimicmotion studio` with the small model, in headless Chromium.

With STUDIO_PICTURES=docs/images it also makes the pictures of docs/studio.md.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.decode import open_video

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PICTURES = os.environ.get("STUDIO_PICTURES")
SECOND = 1000
LONG = 180 * SECOND


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A drawn person with keypoints, a motion, one of two people, and files that are wrong."""
    folder = tmp_path_factory.mktemp("inputs")
    look = render(Scene(21, 3, 21, "half", 96, 128, 1, 15.0))
    motion = render(Scene(7, 7, 9, "half", 96, 128, 7, 15.0)).keypoints
    Image.fromarray(look.frames[0]).save(folder / "person.png")
    save_keypoints(look.keypoints, folder / "person.npz")
    save_keypoints(motion, folder / "dance.npz")
    left = dataclasses.replace(motion, body=motion.body * np.float32([0.4, 0.9]))
    columns = {name: np.concatenate([getattr(motion, name), getattr(left, name)], axis=1) for name in ARRAYS}
    save_keypoints(dataclasses.replace(motion, **columns), folder / "two.npz")
    (folder / "text.mp4").write_text("This is a letter, not a video.")
    Image.fromarray(np.full((256, 192, 3), 200, np.uint8)).save(folder / "empty.png")
    return folder


@pytest.fixture(scope="module")
def url():
    """Address of `mimicmotion studio`, with the small model that comes with the package."""
    command = [sys.executable, "-m", "mimicmotion_jax", "studio"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+", line)[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def opened(browser, url):
    """The page, which asks nobody but the studio and logs no errors."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    elsewhere, errors = [], []
    opened.on("request", lambda asked: asked.url.startswith(("data:", "blob:", url)) or elsewhere.append(asked.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert not elsewhere
    assert not errors


@pytest.fixture
def page(opened, url):
    """The page as a newcomer sees it."""
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.goto(url)
    expect(opened.locator("#generate")).to_be_visible(timeout=LONG)
    return opened


def give(page: Page, where: str, file: Path) -> None:
    page.set_input_files(f"#{where} input[type=file]", file)


def give_keypoints(page: Page, inputs: Path, motion: str = "dance.npz") -> None:
    page.get_by_role("button", name="Keypoints instead of video").click()
    give(page, "keypoints", inputs / motion)
    give(page, "pose", inputs / "person.npz")


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


def test_a_newcomer_makes_videos(page, inputs, tmp_path):
    give(page, "image", inputs / "person.png")
    expect(page.locator("#preflight")).to_contain_text("Give a motion as well")
    give_keypoints(page, inputs)
    expect(frame(page).get_by_role("heading", name="Preflight")).to_be_visible(timeout=LONG)
    expect(frame(page).locator("video")).to_have_count(4)
    page.locator("#option-align").get_by_text("limb", exact=True).click()
    expect(frame(page).locator("figure.chosen")).to_contain_text("align=limb", timeout=LONG)
    set_number(page, "num_inference_steps", "2")
    expect(frame(page).locator("dl")).to_contain_text("2 steps", timeout=LONG)
    assert_fits(page, 1280)
    page.locator("#generate").focus()
    page.keyboard.press("Enter")  # by keyboard alone
    expect(page.locator("#status")).to_contain_text("Done in", timeout=LONG)
    expect(page.locator("#result video")).to_be_visible()
    page.wait_for_function("document.querySelector('#result video').currentTime > 0")
    assert page.evaluate("document.querySelector('#result video').videoWidth") == 96
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "result.mp4")
    assert open_video(tmp_path / "result.mp4").num_frames == 7

    assert_fits(page, 390)  # and on with a phone
    page.get_by_role("button", name="Settings, as the file records them").click()
    expect(page.locator("#settings")).to_contain_text("mimicmotion_jax")
    expect(page.locator("#settings")).to_contain_text("settings_sha256")
    page.locator("#again").click()
    expect(page.locator("#gallery img")).to_have_count(2, timeout=LONG)
    seed = page.locator("#option-seed").locator("input, textarea").first.input_value()
    assert seed != "0"
    expect(page.locator("#settings")).to_contain_text(seed)
    page.locator("#gallery button").filter(has_text="seed 0").first.click()
    expect(page.locator("#settings")).not_to_contain_text(seed)
    assert_fits(page, 390)

    set_number(page, "num_inference_steps", "1000")
    page.locator("#generate").click()
    expect(page.locator("#status")).to_contain_text("denoising", timeout=LONG)
    page.locator("#stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped.", timeout=LONG)


def test_what_is_wrong_is_said_in_the_page(page, inputs):
    give(page, "image", inputs / "person.png")
    give(page, "motion", inputs / "text.mp4")
    alert = page.locator("#preflight").get_by_role("alert")
    expect(alert).to_contain_text("text.mp4 is not a video", timeout=LONG)
    page.locator("#generate").click()
    expect(page.locator("#status").get_by_role("alert")).to_contain_text("text.mp4 is not a video")
    page.get_by_role("button", name="Remove Image").click()
    give(page, "image", inputs / "empty.png")
    page.get_by_role("button", name="Keypoints instead of video").click()
    page.locator("#motion").get_by_role("button", name="Clear").click()
    give(page, "keypoints", inputs / "dance.npz")
    expect(alert).to_contain_text("nobody was found in the 96x128 crop of empty.png", timeout=LONG)
    assert "Traceback" not in page.content()
    assert_fits(page, 390)


def test_the_person_to_follow_is_clicked(page, inputs):
    give(page, "image", inputs / "person.png")
    give_keypoints(page, inputs, "two.npz")
    expect(frame(page).locator("body")).to_contain_text("Person 0 is followed", timeout=LONG)
    picture = page.locator("#people img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.2, "y": box["height"] * 0.5})
    expect(frame(page).locator("body")).to_contain_text("Person 1 is followed", timeout=LONG)
    assert_fits(page, 390)


if PICTURES:

    def test_pictures_for_the_documentation(browser, url, tmp_path):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.locator("#example-0").click()
        expect(frame(page).get_by_role("heading", name="Preflight")).to_be_visible(timeout=LONG)
        page.locator("#option-align").get_by_text("limb", exact=True).click()
        expect(frame(page).locator("figure.chosen")).to_contain_text("align=limb", timeout=LONG)
        page.locator("#generate").click()
        expect(page.locator("#status")).to_contain_text("Done in", timeout=LONG)
        page.locator("#again").click()
        expect(page.locator("#gallery img")).to_have_count(2, timeout=LONG)
        for width, name in ((1280, "studio"), (390, "studio_phone")):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate("scrollTo(0, 0)")  # the animations play while they are in view
            page.mouse.move(0, 0)
            page.wait_for_timeout(4 * SECOND)  # the players' controls fade
            page.screenshot(path=tmp_path / "page.png", full_page=True)
            picture = Image.open(tmp_path / "page.png").convert("RGB").quantize(240, Image.Quantize.FASTOCTREE)
            picture.save(Path(PICTURES) / f"{name}.png", optimize=True)
        page.close()
