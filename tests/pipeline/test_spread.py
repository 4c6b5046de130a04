"""One video on many devices: the same video, an equal share of the work for each device, no copy of the long parts."""

import jax
import numpy as np
import pytest
from tiny import TINY, TWO_RESOLUTIONS

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.cli.compile_only import report_generation
from mimicmotion_jax.inference.layout import lay_out
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.models import attention, layers
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.xla_report import CompileReport, compile_report

DRAWN = {"motion_kind": "skeletons", "progress": False}  # noise is no picture of a skeleton


@pytest.mark.parametrize(
    ("devices", "windows", "branches", "frames", "positions", "expected"),
    [
        (8, 20, 2, 16, 144, (8, 1, 1)),
        (8, 8, 2, 16, 144, (8, 1, 1)),
        (8, 5, 2, 16, 144, (4, 2, 1)),
        (8, 3, 2, 16, 144, (2, 2, 2)),
        (8, 1, 2, 72, 144, (1, 2, 4)),
        (8, 1, 1, 16, 144, (1, 1, 8)),
        (8, 1, 2, 1, 144, (4, 2, 1)),  # windows that must stay whole: some devices have nothing to do
        (8, 1, 2, 9, 144, (4, 2, 1)),  # nine frames do not divide by four
        (6, 2, 1, 16, 144, (6, 1, 1)),  # two windows leave threes, which do not divide 16 frames
        (6, 2, 1, 9, 144, (2, 1, 3)),
        (1, 7, 2, 16, 144, (1, 1, 1)),
    ],
)
def test_layout(devices, windows, branches, frames, positions, expected):
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices), windows, branches, frames, positions)
    assert tuple(mesh.devices.shape) == expected


@pytest.mark.slow  # test_pipeline.py: windows, branches and frames of one video, each over two devices
@pytest.mark.parametrize(
    ("model", "guidance_scale"),
    [
        pytest.param(TINY, 2.0, id="guided"),
        pytest.param(TINY, 1.0, id="not guided"),
        pytest.param(TWO_RESOLUTIONS, 2.0, id="two resolutions"),
    ],
)
def test_one_window_on_eight_devices(model, guidance_scale):
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (64, 64, 3), np.uint8)
    poses = random.integers(0, 256, (8, 64, 64, 3), np.uint8)
    options = {"num_inference_steps": 2, "guidance_scale": guidance_scale, "output_type": "latent", **DRAWN}
    alone, spread = (MimicMotionPipeline.random(model, dtype="float32", mesh=sharding.sampling_mesh(n)) for n in (1, 8))
    expected, found = (pipeline(image, poses, **options).frames for pipeline in (alone, spread))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_decoding_on_eight_devices(tiny_pipeline):
    """The same frames, though each device decodes a chunk of its own."""
    latents = np.random.default_rng(4).normal(size=(1, 41, 8, 8, 4)).astype(np.float32)
    config = GenerateConfig(decode_chunk_size=4)
    eight = MimicMotionPipeline.random(TINY, mesh=sharding.sampling_mesh(8))
    found, expected = (np.concatenate(list(p.decode(latents, config)), axis=1) for p in (eight, tiny_pipeline))
    assert found.shape == (1, 41, 64, 64, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def report(program: str, num_frames: int, devices: int, model: ModelConfig = TINY, steps: int = 1) -> CompileReport:
    """A program of a call for that many frames, the reference's included."""
    options = GenerateConfig(width=64, height=64, num_inference_steps=steps, decode_chunk_size=4)
    mesh = sharding.sampling_mesh(devices)
    lowered = MimicMotionPipeline.abstract(model, "float32", mesh).lower(num_frames - 1, 64, 64, options)[program]()
    layout = lay_out(mesh, model, options, 1, num_frames, 64, 64)
    trips = -(-layout.plan.num_windows // layout.group)
    return compile_report(lowered, mesh, unknown_trip_count=trips)


@pytest.mark.slow  # the frames are compared above
def test_decoding_work_per_device():
    """Eight devices decode eight chunks with the work of one chunk each."""
    alone, shared = (report("decode_chunks", 8, devices) for devices in (1, 8))
    assert shared.flops_per_chip == pytest.approx(alone.flops_per_chip, rel=0.01)


@pytest.mark.slow  # `test_layout` says what lies where, and `test_pipeline` compares the video
@pytest.mark.parametrize(
    ("devices", "windows", "model", "steps"),
    [
        (8, 8, TINY, 3),
        (8, 1, TWO_RESOLUTIONS, 3),  # of one step a tenth is not divided
    ],
)
def test_work_per_device(devices, windows, model, steps):
    """An equal part of the FLOPs on each of the devices, for as many windows and for the frames of a single one.

    (Of a single one `test_layout` and `test_one_window_on_eight_devices` say that its frames are spread.)
    """
    num_frames = model.window_size + (windows - 1) * (model.window_size - 1 - 3)  # the reference is in every window
    alone, shared = (report("run_denoising", num_frames, number, model, steps) for number in (1, devices))
    assert shared.flops_per_chip == pytest.approx(alone.flops_per_chip / devices, rel=0.05)


@pytest.mark.slow  # the reports above lower the same call
@pytest.mark.parametrize(("num_frames", "frames", "windows"), [(None, 7, 1), (8, 8, 2)])
def test_compiled_is_what_a_run_of_as_many_frames_compiles(num_frames, frames, windows):
    """The reference's frame comes on top; windows of 8, of which 2 overlap and one is the reference's."""
    config = GenerateConfig(width=64, height=64, window_overlap=2, num_inference_steps=2, num_frames=num_frames)
    report = report_generation(config, TINY, "float32")
    assert (report["frames"], report["windows"]) == (frames, windows)


@pytest.mark.slow
def test_memory_hardly_grows_with_the_length():
    """One more frame takes its latents and the output of PoseNet's stem on the device."""
    short, long = 28, 224  # to which others are padded
    per_frame = (report("run_denoising", long, 1).memory.total - report("run_denoising", short, 1).memory.total) / (
        long - short
    )
    latents, features = 8 * 8 * 4 * 4, 8 * 8 * TINY.pose_net.stem_channels * 4
    assert per_frame < features + 4 * latents


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [14, 8])  # two windows, one
def test_the_denoising_program_lies_on_one_mesh(monkeypatch, num_frames):
    """jax demands it of programs that depend on where arrays lie, as cuDNN's attention does; here one that asks."""
    seen = []

    def attend(query, *others):
        jax.debug.inspect_array_sharding(query, callback=seen.append)
        return attention.dot_product_attention(query, *others)

    monkeypatch.setattr(layers, "dot_product_attention", attend)
    jax.clear_caches()
    random = np.random.default_rng(3)
    poses = random.integers(0, 256, (num_frames, 64, 64, 3), np.uint8)
    eight = MimicMotionPipeline.random(TINY, mesh=sharding.sampling_mesh(8))
    options = {"num_inference_steps": 1, "window_overlap": 2, "output_type": "latent", **DRAWN}
    assert np.isfinite(eight(poses[0], poses, **options).frames).all()
    assert seen
    jax.clear_caches()
