"""Memory that does not suffice is told in one sentence wherever devices work; the errors are jax's and NumPy's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax import InputError, MimicMotionPipeline
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.evaluation.failures import Failures
from mimicmotion_jax.evaluation.model import Model
from mimicmotion_jax.evaluation.videos import VideoMaker
from mimicmotion_jax.pose.render import DrawnPoses
from mimicmotion_jax.runtime.out_of_memory import fetch, report_out_of_memory
from mimicmotion_jax.synthetic.dancer import demo_motion


def too_much(*args, **kwargs) -> jax.Array:
    """Four pebibytes of one device."""
    return jnp.zeros(1 << 50).block_until_ready()


@jax.jit
def too_much_in_between(x: jax.Array) -> jax.Array:
    return jnp.sort(jnp.broadcast_to(x, (1 << 25, x.size))).sum()


@pytest.mark.parametrize(
    ("work", "where"),
    [
        (too_much, "the device's"),
        (lambda: too_much_in_between(jnp.ones(1 << 25)).block_until_ready(), "the device's"),
        (lambda: np.zeros(1 << 58), "this machine's"),
    ],
)
def test_what_to_do_is_said_in_one_sentence(work, where):
    with pytest.raises(InputError) as caught, report_out_of_memory("buy some more"):
        work()
    assert str(caught.value) == f"{where} memory does not suffice; buy some more."


@jax.jit
def busy(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 5, lambda _, y: y @ x / len(x), x)


def test_a_program_that_finds_no_room_after_a_while():
    """The device is busy when it is started: the error comes with the results."""

    @jax.jit
    def short_of_memory(x):
        return jnp.zeros(1 << 50) + x[0, 0], x.sum()

    matrix = jnp.ones((3000, 3000))
    program = short_of_memory.lower(matrix).compile()  # or the device is idle again by then
    with pytest.raises(InputError, match="the device's memory"), report_out_of_memory("buy some more"):
        fetch(program(busy(matrix))[1])


def test_a_program_that_finds_no_room_when_it_runs_again():
    """Its first start, on a busy device, succeeds; the second finds the device idle and fails at once."""

    @jax.jit
    def short_of_memory(x):
        return jnp.broadcast_to(x[0, 0], (1 << 50,))

    matrix = jnp.ones((3000, 3000))
    program = short_of_memory.lower(matrix).compile()
    started = program(busy(matrix))
    with pytest.raises(InputError, match="the device's memory"), report_out_of_memory("buy some more"):
        fetch(started)
    with pytest.raises(InputError, match="the device's memory"), report_out_of_memory("buy some more"):
        fetch(program(matrix))


def test_other_errors_pass():
    def fail(x):
        raise OSError("no such luck")

    def call(x):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((), np.float32), x)

    with pytest.raises(jax.errors.JaxRuntimeError, match="no such luck"), report_out_of_memory("buy some more"):
        jax.jit(call)(1.0).block_until_ready()


def test_weights_that_a_device_has_no_room_for(tiny_pipeline, tmp_path, monkeypatch):
    tiny_pipeline.save_pretrained(tmp_path / "tiny")
    monkeypatch.setattr("mimicmotion_jax.checkpoint.load_network", too_much)
    with pytest.raises(InputError, match=r"the device's memory does not suffice; .*bfloat16"):
        MimicMotionPipeline.from_pretrained(tmp_path / "tiny")


def test_a_video_that_a_device_has_no_room_for(tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("mimicmotion_jax.inference.engine.Engine._latents", too_much)
    image, motion = np.zeros((64, 64, 3), np.uint8), DrawnPoses(demo_motion(2, 10, 64, 64), 64, 64)
    with pytest.raises(InputError, match=r"the device's memory .*; denoising takes about .* memory=low frees"):
        tiny_pipeline.stream(image, motion, progress=False).save(tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_a_reconstruction_that_a_device_has_no_room_for(tiny_pipeline, tmp_path, monkeypatch):
    class Task:
        """Two frames in memory, in the place of a sequence's on disk."""

        name, size, num_frames, keypoints = "dance", (64, 64), 2, demo_motion(2, 10, 64, 64)

        def frames(self, start=0):
            return iter(np.zeros((2 - start, 64, 64, 3), np.uint8))

        def sha256(self):
            return "0"

    monkeypatch.setattr(MimicMotionPipeline, "from_pretrained", lambda *args, **kwargs: tiny_pipeline)
    monkeypatch.setattr("mimicmotion_jax.evaluation.model.encode.encode_image", too_much)
    model = Model(tmp_path, "0", "0", 16, 32, None, None)
    failures = Failures(tmp_path / "errors.log")
    VideoMaker(model, EvaluateConfig(), tmp_path / "output", failures, progress=False).reconstruct([Task()])
    assert "the device's memory does not suffice; lower decode_chunk_size" in failures.reasons["dance"]
    assert not list((tmp_path / "output").rglob("*.*"))
