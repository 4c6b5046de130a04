"""The studio in a real browser, as a newcomer uses it: `mimicmotion studio` with the small model, in headless Chromium.

With STUDIO_PICTURES=docs/images it also makes the pictures of docs/studio.md.
"""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from studio_browser import (
    LONG,
    SECOND,
    assert_fits,
    frame,
    give,
    give_keypoints,
    set_number,
    watched_page,
)

from mimicmotion_jax.cli import check
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.keypoints import ARRAYS
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PICTURES = os.environ.get("STUDIO_PICTURES")


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


@contextlib.contextmanager
def studio(*options: str, **environment: str):
    """`mimicmotion studio` in a process of its own, with the small model; gives it and its address."""
    command = [sys.executable, "-m", "mimicmotion_jax", "studio", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process, re.search(r"http://[\w.]+:\d+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def url():
    with studio() as (_, address):
        yield address


@pytest.fixture(scope="module")
def opened(browser, url):
    with watched_page(browser, url) as page:
        yield page


@pytest.fixture
def page(opened, url):
    """The page as a newcomer sees it."""
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.goto(url)
    expect(opened.locator("#generate")).to_be_visible(timeout=LONG)
    return opened


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
    caption = page.locator("#gallery button").nth(1).inner_text()
    seed = re.search(r"seed (\d+)", caption)[1]
    assert seed != "0"
    expect(page.locator("#settings")).to_contain_text(seed)
    page.locator("#gallery button").filter(has_text="seed 0").first.click()
    expect(page.locator("#settings")).not_to_contain_text(seed)
    assert_fits(page, 390)
    page.reload()  # the gallery stays, and the inputs come back with a result
    expect(page.locator("#gallery img")).to_have_count(2, timeout=LONG)
    page.locator("#gallery button").nth(1).click()
    page.locator("#recall").click()
    expect(page.locator("#option-seed").locator("input, textarea").first).to_have_value(seed, timeout=LONG)
    expect(frame(page).locator("figure.chosen")).to_contain_text("align=limb", timeout=LONG)

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


def test_the_webcam_gives_picture_and_motion(browser, url, inputs):
    """Chromium's own camera shows a green disc, in which nobody is found; the recording is read as a video."""
    context = browser.new_context(permissions=["camera", "microphone"])
    page = context.new_page()
    page.goto(url)
    page.locator("#image").get_by_role("button", name="Capture from camera").click()
    page.get_by_text("Click to Access Webcam").first.click()
    page.locator("#image").get_by_role("button", name="capture photo").click()
    expect(page.locator("#preflight")).to_contain_text("Give a motion as well", timeout=LONG)
    give_keypoints(page, inputs, "dance.npz")
    page.locator("#motion").get_by_role("button", name="Capture from camera").click()
    page.get_by_text("Click to Access Webcam").first.click()
    page.locator("#motion").get_by_role("button", name="start recording").click()
    page.wait_for_timeout(2 * SECOND)
    page.locator("#motion").get_by_role("button", name="start recording").click()  # which it is called to the end
    alert = page.locator("#preflight").get_by_role("alert")
    expect(alert).to_contain_text(re.compile(r"nobody was found in any of the \d+ frames"), timeout=LONG)
    context.close()


def test_two_people_at_once(browser, url, inputs):
    """The second waits, sees how long the queue is, and gets a gallery of her own; a page that is closed gives way."""
    pages = [browser.new_context().new_page() for _ in range(3)]
    for page in pages:
        page.goto(url)
        give(page, "image", inputs / "person.png")
        give_keypoints(page, inputs)
        set_number(page, "num_inference_steps", "1000")
    set_number(pages[2], "num_inference_steps", "2")
    for page in pages:
        expect(frame(page).get_by_role("heading", name="Preflight")).to_be_visible(timeout=LONG)
        page.locator("#generate").click()
        expect(page.locator("#status")).to_contain_text(re.compile("denoising|waiting"), timeout=LONG)
    expect(pages[1].locator("#status")).to_contain_text("waiting in the queue, 1 before you")
    expect(pages[2].locator("#status")).to_contain_text("waiting in the queue, 2 before you")
    pages[1].locator("#stop").click()
    expect(pages[1].locator("#status")).to_contain_text("Stopped.", timeout=LONG)
    expect(pages[2].locator("#status")).to_contain_text("waiting in the queue, 1 before you", timeout=LONG)
    pages[0].context.close()
    expect(pages[2].locator("#status")).to_contain_text("Done in", timeout=LONG)
    expect(pages[2].locator("#gallery img")).to_have_count(1)
    pages[1].reload()
    expect(pages[1].locator("#generate")).to_be_visible(timeout=LONG)
    expect(pages[1].locator("#gallery img")).to_have_count(0)
    for page in pages[1:]:
        page.context.close()


def test_three_hours_are_answered_in_seconds(page, inputs, tmp_path):
    """Its length is told, and that it is too long; 120 frames are looked at."""
    frames = np.zeros((100, 64, 64, 3), np.uint8) + np.arange(100, dtype=np.uint8)[:, None, None, None]
    with open_writer(tmp_path / "long.mp4", 1, 64, 64, crf=45, progress=False) as writer:
        for _ in range(108):
            writer.write(frames)
    give(page, "image", inputs / "person.png")
    page.get_by_role("button", name="Keypoints instead of video").click()
    give(page, "pose", inputs / "person.npz")
    give(page, "motion", tmp_path / "long.mp4")
    alert = page.locator("#preflight").get_by_role("alert")
    expect(alert).to_contain_text("nobody was found in any of the 120 frames", timeout=LONG)
    page.locator("#generate").click()
    expect(page.locator("#status").get_by_role("alert")).to_contain_text("10,800 frames, and 5,000 is the most")


def test_a_password_and_an_end(browser, inputs):
    """Without the password nothing is seen; a kill takes uploads and results along."""
    with tempfile.TemporaryDirectory() as folder:
        with studio("--host", "0.0.0.0", MIMICMOTION_STUDIO_AUTH="me:secret", TMPDIR=folder) as (process, url):
            page = browser.new_page()
            page.goto(url.replace("0.0.0.0", "127.0.0.1"))
            expect(page.get_by_role("button", name="Login")).to_be_visible(timeout=LONG)
            assert page.locator("#generate").count() == 0
            page.get_by_label("username").fill("me")
            page.get_by_label("password").fill("secret")
            page.get_by_role("button", name="Login").click()
            expect(page.locator("#generate")).to_be_visible(timeout=LONG)
            assert list(Path(folder).glob("mimicmotion-studio-*"))
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            page.close()
        assert not list(Path(folder).glob("mimicmotion-studio-*"))


def test_the_check_is_a_page_that_works_without_a_network(browser, inputs, tmp_path):
    given = ["--image", inputs / "person.png", "--motion", inputs / "two.npz", "--image-pose", inputs / "person.npz"]
    check.main([*map(str, given), "--output", str(tmp_path / "check.html"), "width=128", "height=192"])
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: request.url.startswith("data:") or asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(f"file://{tmp_path}/check.html")
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.currentTime > 0)")
    page.wait_for_function("[...document.images].every(i => i.naturalWidth > 0)")
    assert_fits(page, 1280)
    assert_fits(page, 390)
    assert asked == [f"file://{tmp_path}/check.html"]
    assert not errors
    context.close()


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
