"""`pipe(image, motion)`: every kind of input, every kind of result, and options that explain themselves."""

import dataclasses
import inspect
import math
import re

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import FEW, SIDE

from mimicmotion_jax import InputError, Keypoints, MimicMotionPipeline, Video, VideoStream
from mimicmotion_jax.inference.options import PipelineOptions
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.synthetic.dancer import demo_motion, demo_reference
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

FAST = FEW | {"width": SIDE, "height": SIDE, "progress": False}
MOTION = demo_motion(5, 10, 192, 320)


@pytest.fixture(scope="module")
def person():
    """A picture of a drawn person, and that person's keypoints."""
    return demo_reference(192, 320)


@pytest.fixture(scope="module")
def video(tiny_pipeline, person) -> Video:
    """The video that every other way of asking for it must give as well."""
    return tiny_pipeline(person[0], MOTION, image_pose=person[1], seed=3, **FAST)


def test_the_result(video):
    assert isinstance(video, Video)
    assert video.frames.shape == (5, SIDE, SIDE, 3)
    assert video.frames.dtype == np.float32
    assert 0 <= video.frames.min() < video.frames.max() <= 1
    assert video.fps == 10
    assert (video.keypoints.num_frames, video.keypoints.width) == (5, SIDE)
    assert "a person in 100%" in str(video.report)
    assert "alignment affine" in str(video.report)


@pytest.mark.parametrize("kind", ["path", "string", "PIL"])
def test_kinds_of_images(tiny_pipeline, person, video, tmp_path, kind):
    path = tmp_path / "person.png"
    Image.fromarray(person[0]).save(path)
    image = {"path": path, "string": str(path), "PIL": Image.open(path)}[kind]
    found = tiny_pipeline(image, MOTION, image_pose=person[1], seed=3, **FAST)
    np.testing.assert_array_equal(found.frames, video.frames)


@pytest.mark.parametrize("kind", ["file", "drawn lazily", "array", "PIL images"])
def test_kinds_of_motions(tiny_pipeline, person, video, tmp_path, kind):
    """Keypoints in a file; and skeletons that are drawn already, which are known by their black ground."""
    if kind == "file":
        save_keypoints(MOTION, tmp_path / "dance.npz")
        found = tiny_pipeline(person[0], tmp_path / "dance.npz", image_pose=person[1], seed=3, **FAST)
        np.testing.assert_array_equal(found.frames, video.frames)
        return
    drawn = video.prepared.poses
    motion = {"drawn lazily": drawn, "array": drawn[:], "PIL images": list(map(Image.fromarray, drawn[:]))}[kind]
    found = tiny_pipeline(video.prepared.image, motion, motion_fps=10, seed=3, progress=False, **FEW)
    np.testing.assert_array_equal(found.frames, video.frames)
    assert found.keypoints is None


def test_frames_of_a_video(tiny_pipeline, golden, tmp_path):
    """The same keypoints from a file, from an array and from PIL images; the latter do not say how fast they are."""
    pytest.importorskip("mediapipe")  # there is no wheel for Python 3.13
    photo = golden.folder.parents[1] / "media" / "images" / "mimicmotion_demo1.jpg"
    frames = np.asarray(Image.open(photo).convert("RGB").resize((180, 320)))[None].repeat(2, axis=0)
    with open_writer(tmp_path / "frames", 10, 180, 320) as writer:
        writer.write(frames)
    options = {"width": SIDE, "height": SIDE, "progress": False, "detector": "mediapipe"}
    motions = (tmp_path / "frames", frames, list(map(Image.fromarray, frames)))
    prepared = [tiny_pipeline.prepare(frames[0], motion, **options) for motion in motions]
    for other in prepared[1:]:
        np.testing.assert_array_equal(other.keypoints.body, prepared[0].keypoints.body)
        assert other.fps == 24
        assert "24 assumed" in str(other.report)
    assert tiny_pipeline.prepare(frames[0], frames, motion_fps=12, **options).fps == 12


@pytest.mark.slow
def test_a_list_of_images(tiny_pipeline, person, video):
    picture, pose = person
    videos = tiny_pipeline([picture, picture], MOTION, image_pose=[pose, pose.mirrored()], seed=[3, 4], **FAST)
    np.testing.assert_array_equal(videos[0].prepared.reference.body, video.prepared.reference.body)
    assert not np.array_equal(videos[1].prepared.reference.body, video.prepared.reference.body)
    np.testing.assert_allclose(videos[0].frames, video.frames, atol=1e-5)
    assert np.abs(videos[1].frames - video.frames).mean() > 0.01
    with pytest.raises(InputError, match="2 images"):
        tiny_pipeline([picture, picture], [MOTION] * 3, **FAST)


def test_a_stream_gives_the_same_frames(tiny_pipeline, person, video, tmp_path):
    def stream() -> VideoStream:
        return tiny_pipeline.stream(person[0], MOTION, image_pose=person[1], seed=3, **FAST)

    once = stream()
    assert (len(once), once.fps) == (5, 10)
    np.testing.assert_array_equal(np.stack(list(once)), video.frames)
    stream().save(tmp_path / "streamed")
    video.save(tmp_path / "whole")
    written = [np.stack(list(open_video(tmp_path / name).frames())) for name in ("streamed", "whole")]
    np.testing.assert_array_equal(*written)
    np.testing.assert_array_equal(written[0], np.round(video.frames * 255).astype(np.uint8))


def test_output_types(tiny_pipeline, person, video, tmp_path):
    def generate(output_type):
        return tiny_pipeline(person[0], MOTION, image_pose=person[1], seed=3, output_type=output_type, **FAST)

    pictures = generate("pil")
    np.testing.assert_array_equal(np.stack(pictures.frames), np.round(video.frames * 255).astype(np.uint8))
    pictures.save(tmp_path / "pictures")
    np.testing.assert_array_equal(np.stack(list(open_video(tmp_path / "pictures").frames())), np.stack(pictures.frames))
    latents = generate("latent")
    assert latents.frames.shape == (5, SIDE // 8, SIDE // 8, 4)
    with pytest.raises(InputError, match="latents cannot be saved"):
        latents.save(tmp_path / "latents.mp4")


def test_a_callback_sees_every_step_and_may_change_the_latents(tiny_pipeline, person, video):
    seen = []

    def watch(pipe, step, timestep, values):
        assert pipe is tiny_pipeline
        seen.append((step, timestep, np.asarray(values["latents"]).std()))

    options = {"image_pose": person[1], "seed": 3, **FAST}
    watched = tiny_pipeline(person[0], MOTION, callback_on_step_end=watch, **options)
    np.testing.assert_allclose(watched.frames, video.frames, atol=1e-5)
    assert [step for step, *_ in seen] == [0, 1]
    # SVD's scheduler: timestep ln(sigma) / 4; two Karras steps are its largest and its smallest sigma.
    np.testing.assert_allclose([t for _, t, _ in seen], [math.log(700) / 4, math.log(0.002) / 4], rtol=1e-5)
    assert seen[0][2] < 700 and seen[1][2] > 0  # noqa: PT018

    def erase(pipe, step, timestep, values):
        return {"latents": jax.numpy.zeros_like(values["latents"])}

    latents = tiny_pipeline(person[0], MOTION, callback_on_step_end=erase, output_type="latent", **options)
    assert not latents.frames.any()

    def stop(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_pipeline(person[0], MOTION, callback_on_step_end=stop, **options)


def test_initial_latents(tiny_pipeline, person):
    """Latents are per frame; noise is one window's, repeated along time."""
    window = np.random.default_rng(0).standard_normal((3, SIDE // 8, SIDE // 8, 4)).astype(np.float32)
    options = {"image_pose": person[1], "output_type": "latent", **FAST}
    repeated = tiny_pipeline(person[0], MOTION, noise=window, **options).frames
    whole = tiny_pipeline(person[0], MOTION, latents=window[[0, 1, 2, 0, 1, 2]], **options).frames
    np.testing.assert_allclose(whole, repeated, atol=1e-5 * np.abs(repeated).max())
    with pytest.raises(InputError, match="one of them"):
        tiny_pipeline(person[0], MOTION, noise=window, latents=window, **options)


def test_every_option_is_an_explained_keyword():
    signature = inspect.signature(MimicMotionPipeline.__call__)
    keywords = {name for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert {field.name for field in dataclasses.fields(PipelineOptions)} <= keywords
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.parameters.values())
    explained = set(re.findall(r"^            (\w+): ", MimicMotionPipeline.__call__.__doc__, re.MULTILINE))
    assert explained - {"InputError"} == keywords | {"image", "motion"}
    for method in (MimicMotionPipeline.stream, MimicMotionPipeline.prepare):
        assert inspect.signature(method) == signature


def test_the_docstring_gives_the_defaults():
    """Numbers and words after the semicolon are those of the options."""
    text = " ".join(MimicMotionPipeline.__call__.__doc__.split())
    stated = {
        name: value.strip('"') for name, value in re.findall(r"(\w+): [^;:]*(?:: [^;:]*)?; (\"?[\w.]+\"?)\. ", text)
    }
    for name in ("num_inference_steps", "guidance_scale", "fps", "motion_bucket_id", "align", "stride", "group_size"):
        assert stated[name].rstrip(".") == str(getattr(PipelineOptions(), name)).removesuffix(".0"), name


@pytest.mark.parametrize("method", ["__call__", "stream", "prepare"])
def test_an_unknown_keyword_is_a_type_error(tiny_pipeline, person, method):
    with pytest.raises(TypeError, match="stepz"):
        getattr(tiny_pipeline, method)(person[0], MOTION, stepz=3)


@pytest.mark.parametrize(
    ("image", "motion", "message"),
    [
        (np.zeros((64, 64, 3), np.float32), MOTION, "uint8"),
        (7, MOTION, "a path, a PIL image or a uint8 array"),
        ("nowhere.png", MOTION, "nowhere.png"),
        (np.zeros((64, 64, 3), np.uint8), 7, "motion must be a path"),
        (np.zeros((64, 64, 3), np.uint8), [], "motion must be a path"),
        (np.zeros((64, 64, 3), np.uint8), np.zeros((2, 64, 64, 3)), "motion must be a path"),
        (np.zeros((64, 64, 3), np.uint8), "nowhere.mp4", "nowhere.mp4"),
    ],
)
def test_what_is_no_input_is_explained(tiny_pipeline, image, motion, message):
    with pytest.raises(InputError, match=message):
        tiny_pipeline(image, motion, image_pose=demo_reference(64, 64)[1], **FAST)


def test_options_of_the_checkpoint_are_defaults(tiny_pipeline, person, video, tmp_path):
    """A saved pipeline comes back: weights, sizes and defaults; a call's own options override them."""
    networks = {name: getattr(tiny_pipeline, name) for name in ("unet", "vae", "image_encoder", "pose_net")}
    defaults = {key: value for key, value in FAST.items() if key != "progress"} | {"seed": 3}
    saved = MimicMotionPipeline(tiny_pipeline.config, **networks, mesh=tiny_pipeline.mesh, defaults=defaults)
    saved.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="overwrite"):
        saved.save_pretrained(tmp_path / "model")
    loaded = MimicMotionPipeline.from_pretrained(tmp_path / "model", mesh=tiny_pipeline.mesh)
    assert loaded.defaults == defaults
    found = loaded(person[0], MOTION, image_pose=person[1], progress=False)
    np.testing.assert_array_equal(found.frames, video.frames)
    assert loaded.prepare(person[0], MOTION, image_pose=person[1], resolution=128).image.shape == (224, 128, 3)


def test_people_may_be_given_as_keypoints_of_several(tiny_pipeline, person):
    crowd = dataclasses.replace(
        MOTION,
        **{
            name: np.concatenate([getattr(MOTION, name), getattr(MOTION.mirrored(), name)], axis=1)
            for name in ("body", "body_score", "hands", "hands_score", "faces", "faces_score")
        },
    )
    assert isinstance(crowd, Keypoints)
    second = tiny_pipeline.prepare(person[0], crowd, image_pose=person[1], person=1, **FAST)
    alone = tiny_pipeline.prepare(person[0], MOTION.mirrored(), image_pose=person[1], **FAST)
    np.testing.assert_array_equal(second.keypoints.body, alone.keypoints.body)
