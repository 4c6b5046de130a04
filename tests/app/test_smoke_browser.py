"""The studio in a real browser, in seconds: a picture and keypoints in, the preflight, a video that plays, a mistake.

`test_browser.py` does more, with the small model.
"""

import pytest
from PIL import Image
from playwright.sync_api import expect
from studio_browser import LONG, assert_fits, frame, give, give_keypoints, watched_page
from tiny import FEW, SIDE

from mimicmotion_jax.app.serve import serve
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference

pytestmark = pytest.mark.browser


@pytest.fixture
def url(tiny_pipeline, monkeypatch):
    monkeypatch.setattr(tiny_pipeline, "defaults", FEW | {"width": SIDE, "height": SIDE})
    running = serve(tiny_pipeline, block=False)
    yield running.url
    running.close()


def test_a_picture_and_keypoints_become_a_video(browser, url, tmp_path):
    picture, pose = demo_reference(64, 64)
    Image.fromarray(picture).save(tmp_path / "person.png")
    save_keypoints(pose, tmp_path / "person.npz")
    save_keypoints(demo_motion(4, 10, 640, 640), tmp_path / "dance.npz")
    (tmp_path / "text.mp4").write_text("This is a letter, not a video.")
    with watched_page(browser, url) as page:
        page.goto(url)
        give(page, "image", tmp_path / "person.png")
        give(page, "motion", tmp_path / "text.mp4")
        alert = page.locator("#preflight").get_by_role("alert")
        expect(alert).to_contain_text("text.mp4 is not a video", timeout=LONG)
        page.locator("#motion").get_by_role("button", name="Clear").click()
        give_keypoints(page, tmp_path)
        expect(frame(page).locator("video")).to_have_count(4, timeout=LONG)
        page.locator("#generate").click()
        expect(page.locator("#status")).to_contain_text("Done in", timeout=LONG)
        page.wait_for_function("document.querySelector('#result video').videoWidth == 64")
        assert_fits(page, 390)
