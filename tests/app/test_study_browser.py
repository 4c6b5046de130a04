"""A study in a real browser: twenty participants by script, ten from a file and ten from the server, and its report.

With STUDIO_PICTURES=docs/images it also makes the pictures of docs/study.md.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from mimicmotion_jax.cli import study as command
from mimicmotion_jax.evaluation.study.files import read_study
from mimicmotion_jax.synthetic.world import Scene, render
from mimicmotion_jax.video.encode import open_writer

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PICTURES = os.environ.get("STUDIO_PICTURES")
SECOND = 1000
METHODS = ("ours", "blurred", "jerky")


def draw_videos(folder: Path, num_frames: int, size=(96, 128), fps=30.0) -> list[str]:
    """Two drawn people as three methods show them: well, blurred, and in jumps; returns the arguments of --videos."""
    for number, name in enumerate(("dance", "wave")):
        frames = render(Scene(21 + number, 7 + number, 21, "half", *size, num_frames, fps)).frames
        shown = {
            "ours": frames,
            "blurred": [cv2.GaussianBlur(frame, (0, 0), size[0] / 60) for frame in frames],
            "jerky": frames[np.arange(num_frames) // 6 * 6],
        }
        for method, pictures in shown.items():
            with open_writer(folder / method / f"{name}.mp4", fps, *size, progress=False) as writer:
                writer.write(np.stack(pictures))
    return [f"{name}={folder / name}" for name in METHODS]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with videos of a fifth of a second."""
    folder = tmp_path_factory.mktemp("study")
    assert command.main(["--videos", *draw_videos(folder, 6), "--output", str(folder / "study")]) == 0
    return folder / "study"


@pytest.fixture(scope="module")
def url(study):
    """Address of `mimicmotion study --serve`."""
    arguments = [sys.executable, "-m", "mimicmotion_jax", "study", "--serve", str(study), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def open_page(browser):
    """Opens an address as somebody new; pages ask nobody else and log no errors."""
    contexts, elsewhere, errors = [], [], []

    def opened(address: str, width: int = 1280, height: int = 900):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        own = address.partition("?")[0].removesuffix("index.html")
        page.on("request", lambda asked: asked.url.startswith((own, "blob:")) or elsewhere.append(asked.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not elsewhere
    assert not errors


def assert_fits(page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def clips(page) -> list[str]:
    """Names of the clips on the left and on the right."""
    return page.eval_on_selector_all("#videos video", "videos => videos.map(v => v.src.match(/clips.(.*).mp4/)[1])")


def wait_for_the_end(page) -> None:
    expect(page.locator("#status")).to_have_text("Which one is better?", timeout=60 * SECOND)
    assert page.eval_on_selector_all("#videos video", "videos => videos.every(v => v.ended)")


def answer_all(page, key, prefers, by_keyboard: bool) -> None:
    """Answer every pair; `prefers(baseline, clip)` says when the method is chosen."""
    if by_keyboard:
        page.keyboard.press("Enter")  # "Begin" has the focus
    else:
        page.get_by_role("button", name="Begin").click()
    for number in range(len(key.orders[0])):
        expect(page.locator("#number")).to_have_text(f"Pair {number + 1} of {len(key.orders[0])}")
        left, right = (key.clips[clip] for clip in clips(page))
        is_left = left.method == "ours"
        assert "ours" in (left.method, right.method)
        other = right if is_left else left
        side = "left" if prefers(other.method, other.name) == is_left else "right"
        wait_for_the_end(page)
        if by_keyboard:
            page.keyboard.press(f"Arrow{side.capitalize()}")
            page.keyboard.press("Enter")
        else:
            page.get_by_role("button", name=side.capitalize()).click()
            page.get_by_role("button", name="Next").click()


def test_twenty_participants_and_their_report(open_page, study, url, tmp_path, capsys):
    """Against "blurred" 15 of 20 prefer ours for both clips; against "jerky" all for "dance", and 5 for "wave"."""
    key, sent = read_study(study), tmp_path / "sent"
    sent.mkdir()

    for number in range(20):

        def prefers(baseline, clip, number=number):
            return number < 15 if baseline == "blurred" else clip == "dance" or number % 4 == 0

        if number % 2:
            page = open_page(url, width=390)
            answer_all(page, key, prefers, by_keyboard=number % 4 == 1)
            expect(page.locator("#outcome")).to_contain_text("Your answers are saved")
        else:
            page = open_page((study / "page" / "index.html").as_uri())
            with page.expect_download() as download:
                answer_all(page, key, prefers, by_keyboard=number % 4 == 0)
            expect(page.locator("#outcome")).to_contain_text(download.value.suggested_filename)
            download.value.save_as(sent / download.value.suggested_filename)
        page.close()
    assert len(list((study / "answers").glob("*.json"))) == len(list(sent.glob("*.json"))) == 10
    capsys.readouterr()
    assert command.main(["--report", str(study), str(sent)]) == 0
    report = json.loads((study / "report.json").read_text())
    assert report["participants"] == 20
    z = 1.959963984540054
    for baseline, preferred in (("blurred", 30), ("jerky", 25)):
        found, share = report["baselines"][baseline], preferred / 40
        assert (found["preferred"], found["total"]) == (preferred, 40)
        centre, half = share + z * z / 80, z * (share * (1 - share) / 40 + z * z / 6400) ** 0.5
        np.testing.assert_allclose(found["interval"], np.array([centre - half, centre + half]) / (1 + z * z / 40))
    assert report["baselines"]["jerky"]["clips"]["wave"]["preferred"] == 5
    for width in (1280, 390):
        page = open_page((study / "report.html").as_uri(), width)
        assert_fits(page, width)
        assert page.locator(".bar .share").first.evaluate("e => e.offsetWidth / e.parentElement.offsetWidth") == (
            pytest.approx(0.75, abs=0.01)
        )


def test_nothing_can_be_chosen_before_both_have_ended(open_page, tmp_path):
    """Two videos of two seconds stay in step, though one is shown at a third of its speed."""
    command.main(["--videos", *draw_videos(tmp_path, 60), "--output", str(tmp_path / "study")])
    page = open_page((tmp_path / "study" / "page" / "index.html").as_uri())
    page.evaluate("""() => {
        window.apart = [];
        const look = () => {
            const videos = [...document.querySelectorAll("#videos video")];
            if (videos.length === 2) {
                videos[0].playbackRate = 1 / 3;
                window.apart.push([videos[0].currentTime, videos[1].currentTime]);
            }
            requestAnimationFrame(look);
        };
        look();
    }""")
    page.get_by_role("button", name="Begin").click()
    while page.evaluate("document.querySelectorAll('#videos video')[1]?.currentTime ?? 0") < 0.5:
        page.wait_for_timeout(50)
    for name in ("Left", "Right", "Next", "Play again"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    for key in ("ArrowLeft", "Enter", "r"):
        page.keyboard.press(key)
    expect(page.locator("#number")).to_have_text("Pair 1 of 4")
    wait_for_the_end(page)
    expect(page.locator("button[aria-pressed=true]")).to_have_count(0)
    times = np.array(page.evaluate("window.apart"))
    assert len(times) > 30
    assert np.abs(times[:, 0] - times[:, 1]).max() < 0.25
    page.keyboard.press("r")  # once more
    expect(page.get_by_role("button", name="Left")).to_be_disabled()
    wait_for_the_end(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")  # another thought
    page.keyboard.press("Enter")
    expect(page.locator("#number")).to_have_text("Pair 2 of 4")
    stored = json.loads(page.evaluate("Object.values(localStorage)[0]"))
    assert (stored["choices"][0]["chosen"], stored["choices"][0]["plays"]) == ("left", 2)


def test_a_participant_goes_on_where_they_were_and_makes_room_for_the_next(open_page, study, url):
    key = read_study(study)
    page = open_page(f"{url}/?participant=7", width=390)
    assert_fits(page, 390)
    page.get_by_role("button", name="Begin").click()
    assert tuple(clips(page)) == key.orders[7][0]
    wait_for_the_end(page)
    assert_fits(page, 390)
    page.get_by_role("button", name="Right").click()
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#number")).to_have_text("Pair 2 of 4")
    page.reload()
    page.get_by_role("button", name="Go on at pair 2").click()
    assert tuple(clips(page)) == key.orders[7][1]
    for _ in range(3):
        wait_for_the_end(page)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_timeout(50)
    expect(page.locator("#outcome")).to_contain_text("Your answers are saved")
    saved = json.loads((study / "answers" / "7.json").read_text())
    assert [choice["chosen"] for choice in saved["choices"]] == ["right", "left", "left", "left"]
    page.reload()  # sends nothing again
    page.get_by_role("button", name="Show my answers").click()
    expect(page.locator("#outcome")).to_contain_text("Your answers are saved")
    assert not (study / "answers" / "7-2.json").exists()
    page.get_by_role("button", name="Somebody else’s turn").click()
    expect(page.get_by_role("button", name="Begin")).to_be_visible()
    (study / "answers" / "7.json").unlink()


if PICTURES:

    def test_pictures_for_the_documentation(open_page, tmp_path):
        folder = tmp_path / "study"
        command.main(["--videos", *draw_videos(tmp_path, 45, (288, 384)), "--output", str(folder)])
        key = read_study(folder)

        def shoot(page, name):
            page.screenshot(path=tmp_path / "page.png", full_page=True)
            picture = Image.open(tmp_path / "page.png").convert("RGB").quantize(240, Image.Quantize.FASTOCTREE)
            picture.save(Path(PICTURES) / f"{name}.png", optimize=True)

        for width, name in ((1280, "study"), (390, "study_phone")):
            page = open_page((folder / "page" / "index.html").as_uri(), width, 760)
            page.get_by_role("button", name="Begin").click()
            wait_for_the_end(page)
            page.keyboard.press("ArrowLeft")
            shoot(page, name)
        rng = np.random.default_rng(0)
        (folder / "answers").mkdir()
        for number in range(36):
            choices = []
            for left, right in key.orders[number]:
                pair = [key.clips[clip].method for clip in (left, right)]
                ours = rng.random() < (0.75 if "jerky" in pair else 0.95)
                chosen = "left" if (pair[0] == "ours") == ours else "right"
                choices.append({"left": left, "right": right, "chosen": chosen, "seconds": 2.5, "plays": 1})
            time = {"started": "2026-01-02T03:04:05Z", "finished": "2026-01-02T03:09:05Z"}
            content = {"study": key.study, "participant": str(number), "order": number, "choices": choices} | time
            (folder / "answers" / f"{number}.json").write_text(json.dumps(content))
        command.main(["--report", str(folder)])
        shoot(open_page((folder / "report.html").as_uri(), 1280, 700), "study_report")
