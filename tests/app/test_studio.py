"""The studio as programs use it, by its REST API: preflight, generation, mistakes, stop, password, files."""

import json
import re
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from tiny import FEW

from mimicmotion_jax import InputError
from mimicmotion_jax.app import form
from mimicmotion_jax.app.generation import StoppedError, generate
from mimicmotion_jax.app.serve import AUTH_VARIABLE, check_address, read_auth, serve
from mimicmotion_jax.app.studio import Studio
from mimicmotion_jax.app.timing import Timing
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer
from mimicmotion_jax.video.provenance import read_provenance

SIZE = FEW | {"width": "64", "height": "64"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Paths of a picture, its keypoints and those of a dance."""
    folder = tmp_path_factory.mktemp("inputs")
    picture, pose = demo_reference(64, 64)
    Image.fromarray(picture).save(folder / "person.png")
    save_keypoints(pose, folder / "person.npz")
    save_keypoints(demo_motion(4, 10, 640, 640), folder / "dance.npz")
    return folder


@pytest.fixture(scope="module")
def server(tiny_pipeline):
    running = serve(tiny_pipeline, auth=None, max_upload_mb=1, block=False)
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server.url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def given(folder, **files):
    names = {"image": "person.png", "keypoints": "dance.npz", "image_pose": "person.npz"} | files
    return {key: handle_file(folder / name) for key, name in names.items() if name}


def test_the_preflight_is_a_page_and_findings(client, inputs):
    page, findings = client.predict(**given(inputs), **SIZE, align="limb", api_name="/preflight")
    assert Path(page).read_text().startswith("<!doctype html>")
    assert "align=limb</b> (chosen)" in Path(page).read_text()
    assert (findings["frames"], findings["fps"], findings["size"]) == (4, 10, [64, 64])
    assert set(findings["outside"]) == {"none", "affine", "limb"}


def test_generate_gives_the_video_of_the_pipeline(client, inputs, tiny_pipeline):
    video, settings = client.predict(**given(inputs), **SIZE, seed="7", align="limb", api_name="/generate")
    options = FEW | {"width": 64, "height": 64, "seed": 7, "align": "limb"}
    expected = tiny_pipeline(
        inputs / "person.png", inputs / "dance.npz", image_pose=inputs / "person.npz", **options, progress=False
    )
    expected.save(inputs / "expected.mp4")
    frames, wanted = (np.stack(list(open_video(path).frames())) / 255 for path in (video, inputs / "expected.mp4"))
    assert frames.shape == wanted.shape == expected.frames.shape
    np.testing.assert_allclose(frames, wanted, atol=0.02)
    assert settings["seed"] == "7"
    assert settings["options"]["align"] == "limb"
    recorded = read_provenance(video)
    assert {key: settings[key] for key in recorded} == recorded
    assert "seed7" in Path(video).name


def test_a_second_video_is_expected_to_take_what_the_first_took(client, inputs):
    page, _ = client.predict(**given(inputs), **SIZE, api_name="/preflight")
    assert "as measured on this device" in Path(page).read_text()
    page, _ = client.predict(**given(inputs), **(SIZE | {"width": "128"}), api_name="/preflight")
    assert "not known on this device" in Path(page).read_text()


@pytest.mark.parametrize("endpoint", ["/preflight", "/generate"])
def test_mistakes_are_one_sentence_without_folders(client, inputs, endpoint):
    (inputs / "text.mp4").write_text("no video")
    (inputs / "text.png").write_text("no picture")
    (inputs / "wrong.npz").write_bytes(b"PK\3\4nothing")
    for files, message in (
        ({"keypoints": None}, "give a motion: a video, or keypoints."),
        ({"image": "text.png"}, "text.png is damaged or not a picture; give a PNG"),
        ({"keypoints": "wrong.npz"}, "wrong.npz"),
    ):
        with pytest.raises(AppError) as error:
            client.predict(**given(inputs, **files), **SIZE, api_name=endpoint)
        assert message in str(error.value)
        assert "/" not in str(error.value).split(";")[0]
        assert "Traceback" not in str(error.value)
    video = {"motion": handle_file(inputs / "text.mp4")}
    with pytest.raises(AppError, match=r"text\.mp4"):
        client.predict(**given(inputs, keypoints=None), **video, **SIZE, api_name=endpoint)
    with pytest.raises(AppError, match="both sides must be multiples of"):
        client.predict(**given(inputs), **(SIZE | {"width": "65"}), api_name=endpoint)


def rest(url, endpoint, arguments):
    """Call an endpoint as curl does; its last event and the data of that."""
    number = httpx.post(f"{url}gradio_api/call/v2/{endpoint}", json=arguments).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/v2/{endpoint}/{number}", timeout=120).text
    event, data = re.findall(r"event: (\w+)\ndata: (.*)", answer)[-1]
    return event, json.loads(data)


def test_rest_takes_named_arguments(server, inputs, tmp_path):
    def upload(name):
        answer = httpx.post(f"{server.url}gradio_api/upload", files={"files": (name, (inputs / name).read_bytes())})
        return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}

    files = {"image": "person.png", "keypoints": "dance.npz", "image_pose": "person.npz"}
    arguments = {key: upload(name) for key, name in files.items()} | SIZE
    event, (video, settings) = rest(server.url, "generate", arguments | {"seed": "3"})
    assert (event, settings["seed"]) == ("complete", "3")
    (tmp_path / "result.mp4").write_bytes(httpx.get(video["url"]).content)
    assert open_video(tmp_path / "result.mp4").num_frames == 4
    event, answer = rest(server.url, "generate", arguments | {"seed": "-3"})
    assert event == "error"
    assert "seed" in answer["error"]
    outside = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    event, answer = rest(server.url, "preflight", arguments | {"image": outside})
    assert event == "error"
    assert "not uploaded" in answer["error"]


def test_a_file_of_another_folder_is_neither_read_nor_served(server, client, inputs):
    with pytest.raises(AppError):
        client.predict(
            {"path": str(inputs / "person.png"), "meta": {"_type": "gradio.FileData"}}, api_name="/preflight"
        )
    for path in (inputs / "person.png", Path("/etc/passwd"), Path(__file__)):
        assert httpx.get(f"{server.url}gradio_api/file={path}").status_code in (403, 404)


def test_an_upload_that_is_too_large_is_refused(server):
    files = {"files": ("large.mp4", bytes(3 * 2**20))}
    answer = httpx.post(f"{server.url}gradio_api/upload", files=files)
    assert answer.status_code == 413


def test_nothing_on_the_page_comes_from_elsewhere(server):
    config = httpx.get(f"{server.url}config").json()
    assert config["analytics_enabled"] is False
    assert config["theme_hash"]
    css = httpx.get(f"{server.url}theme.css").text
    assert "fonts.googleapis" not in css
    assert "@import" not in css


def test_two_at_once_get_their_own_videos(server, inputs):
    found = {}

    def use(seed):
        mine = Client(server.url, verbose=False, httpx_kwargs={"timeout": 120})
        found[seed] = mine.predict(**given(inputs), **SIZE, seed=str(seed), api_name="/generate")[1]

    threads = [threading.Thread(target=use, args=(seed,)) for seed in (11, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {seed: settings["seed"] for seed, settings in found.items()} == {11: "11", 12: "12"}


def values_for(**options):
    return [options.get(name) for name in form.OPTIONS]


class Still:
    """Detector that finds the person of the demo in every picture, and counts them."""

    def __init__(self):
        self.count = 0

    def detect(self, frame):
        self.count += 1
        keypoints = demo_reference(64, 64)[1]
        points, scores = np.zeros((1, 133, 2)), np.zeros((1, 133))
        coco = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]  # COCO's 17 points in OpenPose's body
        points[0, :17], scores[0, :17] = keypoints.body[0, 0, coco] * frame.shape[1::-1], 1
        return points, scores

    def track(self, frames):
        return map(self.detect, frames)


@pytest.fixture
def studio(tiny_pipeline, tmp_path):
    """A studio whose two detectors count, and a video for it."""
    picture, _ = demo_reference(64, 64)
    with open_writer(tmp_path / "dance.mp4", 10, 64, 64, progress=False) as writer:
        writer.write(np.repeat(picture[None], 5, axis=0))
    studio = Studio(tiny_pipeline, tmp_path / "studio", max_frames=6)
    preparers = (studio._checker._preparer, tiny_pipeline.preparer)
    kept = dict(tiny_pipeline.preparer.survey._detectors)
    for preparer in preparers:
        preparer.survey._detectors["auto", None, None] = Still()
    yield studio, [preparer.survey._detectors["auto", None, None] for preparer in preparers]
    tiny_pipeline.preparer.survey._detectors = kept


def test_poses_are_detected_once(studio, inputs, tmp_path):
    """The preflight looks at the picture and at five frames; generating, and another seed, look at nothing again."""
    studio, (preflight, pipeline) = studio
    files = (str(inputs / "person.png"), str(tmp_path / "dance.mp4"), None, None)
    studio.look(files, values_for(**SIZE))
    assert (preflight.count, pipeline.count) == (6, 0)
    made = [list(studio.run(files, values_for(**SIZE, seed=seed), "me"))[-1] for seed in ("1", "2")]
    assert (preflight.count, pipeline.count) == (6, 0)
    assert [one.result.settings["seed"] for one in made] == ["1", "2"]
    assert made[0].result.prepared.origin.motion_sha256
    longer = values_for(**SIZE, num_frames="3")
    steps = list(studio.run(files, longer, "me"))
    assert pipeline.count == 4
    assert any(step.stage == "detecting poses" and step.total == 3 for step in steps[:-1])


def test_a_job_waits_for_its_turn_and_can_be_stopped_while_it_waits(studio, inputs):
    studio, _ = studio
    files = tuple(str(inputs / name) if name else None for name in ("person.png", None, "dance.npz", "person.npz"))
    first, second, third = (studio.run(files, values_for(**SIZE), name) for name in "abc")
    next(first)
    assert next(second).stage == "waiting in the queue, 1 before you"
    assert next(third).stage == "waiting in the queue, 2 before you"
    studio.stop("b")
    with pytest.raises(StoppedError):
        list(second)
    assert next(third).stage == "waiting in the queue, 1 before you"
    first.close()  # its page was closed
    *_, made = third
    assert studio.made(made.key) is made
    assert studio.made("another") is None


def test_a_video_that_is_too_long_is_refused_before_anything_is_detected(studio, inputs, tmp_path):
    studio, _ = studio
    save_keypoints(demo_motion(7, 10, 640, 640), tmp_path / "long.npz")
    files = (str(inputs / "person.png"), None, str(tmp_path / "long.npz"), str(inputs / "person.npz"))
    message = "the video would have 7 frames, and 6 is the most that is made here: set num_frames"
    with pytest.raises(InputError, match=message):
        list(studio.run(files, values_for(**SIZE), "me"))
    assert studio.look(files, values_for(**SIZE))[0].problems[0].startswith(message)
    list(studio.run(files, values_for(**SIZE, num_frames="6"), "me"))


def test_a_stop_ends_it_at_the_next_step(tiny_pipeline, inputs, tmp_path):
    stop, steps = threading.Event(), []
    arguments = {"image": str(inputs / "person.png"), "motion": str(inputs / "dance.npz")}
    arguments |= {"image_pose": str(inputs / "person.npz"), "width": 64, "height": 64, **FEW, "num_inference_steps": 50}

    def watch():
        for update in generate(tiny_pipeline, arguments, tmp_path / "new", stop, Timing()):
            steps.append(update)
            if update.stage == "denoising" and update.done == 3:
                stop.set()

    with pytest.raises(StoppedError):
        watch()
    assert 3 <= max(step.done for step in steps if step.stage == "denoising") < 50
    assert not list((tmp_path / "new").glob("*.mp4"))
    previews = [step.preview for step in steps if step.preview is not None]
    assert all(preview.shape == (64, 64, 3) for preview in previews)


@pytest.mark.slow  # the previews' sizes and order are above
def test_the_last_preview_is_nearly_the_result(tiny_pipeline, inputs, tmp_path):
    """The last step heads for the result itself."""
    save_keypoints(demo_motion(7, 10, 640, 640), inputs / "long.npz")  # with the reference one window, and one chunk
    arguments = {"image": str(inputs / "person.png"), "motion": str(inputs / "long.npz"), "decode_chunk_size": 8}
    arguments |= {"image_pose": str(inputs / "person.npz"), "width": 64, "height": 64, "num_inference_steps": 4}
    *steps, result = generate(tiny_pipeline, arguments, tmp_path / "new", threading.Event(), Timing())
    last = [step.preview for step in steps if step.preview is not None][-1]
    expected = tiny_pipeline(**arguments, progress=False).frames[3]
    assert np.abs(expected * 255 - last).mean() < 2
    assert len(steps) > 4 + 7
    comparison = open_video(result.comparison)
    assert comparison.num_frames == 7
    assert comparison.width > 2.5 * comparison.height * 0.9
    assert Image.open(result.poster).size == (64, 64)


def test_a_password_is_asked_for(tiny_pipeline, monkeypatch):
    monkeypatch.setenv(AUTH_VARIABLE, "me:se:cret")
    running = serve(tiny_pipeline, auth=read_auth(None), block=False)
    try:
        assert httpx.get(f"{running.url}config").status_code == 401
        with pytest.raises(ValueError, match="Could not login"):
            Client(running.url, verbose=False, auth=("me", "wrong"))
        Client(running.url, verbose=False, auth=("me", "se:cret"))
    finally:
        running.close()


def test_passwords_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    assert read_auth(None) is None
    (tmp_path / "users").write_text("a:1\n\nb:2:3\n")
    assert read_auth(tmp_path / "users") == [("a", "1"), ("b", "2:3")]
    for text in ("", "nobody\n", "a:\n"):
        (tmp_path / "users").write_text(text)
        with pytest.raises(InputError, match="must hold USER:PASSWORD"):
            read_auth(tmp_path / "users")
    with pytest.raises(InputError, match="cannot be read"):
        read_auth(tmp_path / "missing")


def test_a_port_that_is_taken_is_told(tiny_pipeline, server):
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1, port {port}: it is taken"):
        serve(tiny_pipeline, port=port, block=False)
    for host, number in (("203.0.113.1", None), ("nowhere.invalid", 7999), ("127.0.0.1", 99999)):
        with pytest.raises(InputError, match=f"cannot listen on {host}, port {number or 'any'}:"):
            check_address(host, number)


def test_closing_removes_everything(tiny_pipeline):
    running = serve(tiny_pipeline, block=False)
    folder = Path(running.folder.name)
    assert folder.is_dir()
    running.close()
    assert not folder.exists()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(running.url, timeout=1)
        except httpx.HTTPError:
            return
        time.sleep(0.2)
    raise AssertionError("it still answers")
