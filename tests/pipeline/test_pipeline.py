"""The pipeline: parity with the official one, any length, any number of devices, few compilations, clear refusals."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.monitoring
import numpy as np
import pytest
from tiny import FEW, SIDE, TINY

from mimicmotion_jax import InputError, MimicMotionPipeline, sharding
from mimicmotion_jax.inference.decoding import decode_in_chunks

ROOT = Path(__file__).resolve().parents[2]
DRAWN = {"motion_kind": "skeletons", "progress": False}  # noise is no picture of a skeleton
FAST = FEW | DRAWN


LONG = 14  # three windows, the last off the beat; the arrays have 16 frames


def inputs(num_frames, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return image, generator.integers(0, 256, (num_frames, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def compilations():
    """Counts programs that XLA compiled."""
    count = [0]

    def listen(name, duration, **kwargs):
        count[0] += name == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    return count


@pytest.mark.slow  # test_official_loop runs the official loop itself
def test_parity_with_the_official_pipeline(golden):
    """The script that compares with recorded outputs, at XLA's default optimisation."""
    script = golden.folder.parents[1] / "checks" / "parity.py"
    command = [sys.executable, script, golden.folder, "--project", ROOT, "--latents", "5e-5", "--psnr", "70"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("XLA_FLAGS", "JAX_DISABLE"))
    }
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" ok") == 2


def test_one_step_worked_by_hand():
    sigma = 700.0
    # One step from sigma to 0 gives D = c_skip x + c_out v; with a UNet whose last convolution is 0 that is c_skip x.
    pipeline = MimicMotionPipeline.random(TINY, dtype="float32", mesh=sharding.sampling_mesh(1))
    pipeline.unet.conv_out.kernel.set_value(0 * pipeline.unet.conv_out.kernel[...])
    noise = np.random.default_rng(0).normal(size=(8, SIDE // 8, SIDE // 8, 4)).astype(np.float32)
    image, poses = inputs(8)
    options = {"num_inference_steps": 1, "keep_reference_frame": True, "output_type": "latent", **DRAWN}
    latents = pipeline(image, poses, noise=noise, **options)
    np.testing.assert_allclose(latents.frames, noise * np.sqrt(sigma**2 + 1) / (sigma**2 + 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("num_frames", "fusion"),
    [
        # `test_blended_chunks` decodes a single frame, tests/cli/test_sample.py makes a video of one.
        pytest.param(1, "official", marks=pytest.mark.slow),
        *((length, "official") for length in (8, LONG)),
        *((LONG, fusion) for fusion in ("progressive", "uniform")),  # the ways of fusing differ only between windows
        pytest.param(LONG, "none", marks=pytest.mark.slow),
    ],
)
def test_any_length_works_in_every_mode(tiny_pipeline, num_frames, fusion):
    image, poses = inputs(num_frames)
    out = tiny_pipeline(image, poses, fusion=fusion, keep_reference_frame=True, **FAST)
    assert out.frames.shape == (num_frames, SIDE, SIDE, 3)
    assert np.isfinite(out.frames).all()
    assert out.frames.min() >= 0
    assert out.frames.max() <= 1


def test_a_short_video_is_the_beginning_of_one_that_holds_its_last_pose(tiny_pipeline):
    image, poses = inputs(3)
    held = np.concatenate([poses, np.repeat(poses[-1:], 5, axis=0)])
    short = tiny_pipeline(image, poses, output_type="latent", **FAST).frames
    np.testing.assert_array_equal(short, tiny_pipeline(image, held, output_type="latent", **FAST).frames[:2])


def test_same_video_on_one_and_eight_devices_and_for_any_group_size(tiny_pipeline):
    image, poses = inputs(LONG)
    expected = tiny_pipeline(image, poses, output_type="latent", **FAST).frames
    scale = np.abs(expected).max()
    # Of two videos, as in `test_memory`; two groups for three windows.
    grouped = tiny_pipeline([image] * 2, [poses, poses[::-1]], output_type="latent", group_size=2, **FAST)
    np.testing.assert_allclose(grouped[0].frames, expected, atol=1e-5 * scale)
    # Two windows at a time, their branches and halves on devices of their own; tests/test_readme.py runs it as well.
    eight = MimicMotionPipeline.random(TINY, mesh=sharding.sampling_mesh(8))
    np.testing.assert_allclose(eight(image, poses, output_type="latent", **FAST).frames, expected, atol=1e-5 * scale)


def test_a_batch_equals_its_samples(tiny_pipeline):
    samples = [inputs(8, seed) for seed in (1, 2)]
    images, motions = zip(*samples, strict=True)
    videos = tiny_pipeline(list(images), list(motions), seed=[5, 6], output_type="latent", **FAST)
    for i, (image, poses) in enumerate(samples):
        alone = tiny_pipeline(image, poses, seed=5 + i, output_type="latent", **FAST).frames
        np.testing.assert_allclose(videos[i].frames, alone, atol=1e-5 * np.abs(alone).max())


@pytest.mark.slow
def test_lengths_of_one_bucket_compile_once(tiny_pipeline, compilations):
    options = {"window_overlap": 2, "output_type": "latent", **FAST}
    tiny_pipeline(*inputs(17), **options)
    before = compilations[0]
    tiny_pipeline(*inputs(20), **options)
    assert compilations[0] == before
    tiny_pipeline(*inputs(30), **options)  # the counter does count
    assert compilations[0] > before


@pytest.mark.slow
def test_progress_slices_give_the_same_video(tiny_pipeline, capsys):
    image, poses = inputs(8)
    options = {"num_inference_steps": 10, "output_type": "latent", "motion_kind": "skeletons"}
    whole = tiny_pipeline(image, poses, progress=False, **options).frames
    sliced = tiny_pipeline(image, poses, **options).frames
    np.testing.assert_allclose(sliced, whole, atol=1e-5 * np.abs(whole).max())
    assert "10/10" in capsys.readouterr().err


def test_seeds_and_options_matter(tiny_pipeline):
    def latents(num_frames=8, **change):
        return tiny_pipeline(*inputs(num_frames), output_type="latent", **FAST, **change).frames

    base = latents()
    for change in ({"seed": 1}, {"guidance_scale": 3.0}, {"guidance_scale": 1.0}, {"fps": 12}):
        assert not np.allclose(base, latents(**change))
    assert not np.allclose(latents(LONG), latents(LONG, periodic_noise=True))  # one window has one period
    image, poses = inputs(8)
    # With strength zero the noise of the augmentation has no effect; otherwise it has.
    strong = {"noise_aug_strength": 0.3, "output_type": "latent", **FAST}
    one, other = (tiny_pipeline(image, poses, noise_aug=np.full(image.shape, x), **strong).frames for x in (0.0, 1.0))
    assert not np.allclose(one, other)


@pytest.mark.slow  # tests/models/test_precision.py: the dtypes of half precision
def test_bfloat16_stays_close_to_float32(tiny_pipeline):
    image, poses = inputs(8)
    low = MimicMotionPipeline.random(TINY, dtype="bfloat16", mesh=sharding.sampling_mesh(1))
    full, half = (pipeline(image, poses, **FAST).frames for pipeline in (tiny_pipeline, low))
    assert np.abs(full - half).mean() < 0.02


@pytest.mark.parametrize("overlap", [1, 2, 3])
@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 11])
def test_blended_chunks(num_frames, overlap):
    """A decoder without memory gives back its frames; chunks are no longer than asked; seams ramp linearly."""
    latents = np.random.default_rng(0).normal(size=(2, num_frames, 2, 3, 1))
    lengths = []

    def decode(chunk):
        lengths.append(chunk.shape[1])
        return chunk + 1

    parts = list(decode_in_chunks(decode, latents, 4, overlap))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), latents + 1, rtol=1e-6)
    assert max(lengths) <= 4
    assert len(set(lengths)) == 1  # one shape, one compiled program

    calls = iter(range(100))
    marks = np.concatenate(
        list(decode_in_chunks(lambda c: np.full(c.shape, float(next(calls))), latents, 4, overlap)), 1
    )
    if num_frames == 11 and overlap == 2:  # chunks at 0, 2, 4 … share two frames: thirds on the way to the next
        np.testing.assert_allclose(marks[0, :6, 0, 0, 0], [0, 0, 1 / 3, 2 / 3, 1 + 1 / 3, 1 + 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("together", [2, 3, 8])
def test_chunks_decoded_together(overlap, together):
    """The same frames, that many chunks of each of two samples at a time, and never two calls ahead."""
    latents = np.random.default_rng(0).normal(size=(2, 23, 2, 3, 1))
    calls = []

    def decode(chunks):
        calls.append(chunks.shape[:2])
        return np.cumsum(chunks, axis=1)  # a decoder whose frames depend on where in the chunk they are

    expected = np.concatenate(list(decode_in_chunks(lambda x: np.cumsum(x, axis=1), latents, 4, overlap)), axis=1)
    found, seen = [], []
    for part in decode_in_chunks(decode, latents, 4, overlap, together):
        found.append(part)
        seen.append(len(calls))
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-6)
    lengths = {4} if overlap else {4, 3}
    assert set(calls) == {(2 * together, length) for length in lengths}
    for number, count in enumerate(seen):  # part k comes from call k // together; the next has begun, no other
        assert count == min(number // together + 2, len(calls))


def test_official_chunks_do_not_overlap():
    lengths = []
    parts = decode_in_chunks(lambda c: (lengths.append(c.shape[1]), c)[1], np.zeros((1, 11, 2, 2, 1)), 4, 0)
    assert sum(part.shape[1] for part in parts) == 11
    assert lengths == [4, 4, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps: input should be greater than or equal to 1"),
        ({"window_overlap": 8}, "window_overlap must lie between"),
        ({"window_size": 1}, "window_size"),
        ({"fusion": "average"}, "fusion"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"decode_overlap": 4, "decode_chunk_size": 4}, "smaller than decode_chunk_size"),
        ({"output_type": "gif"}, "output_type"),
        ({"noise": np.zeros((8, 3, 3, 4))}, "must be"),
        ({"latents": np.zeros((8, 4, 6, 4))}, "latents must have 9 frames"),
        ({"seed": [1, 2]}, "images"),
    ],
)
def test_wrong_options_are_explained(tiny_pipeline, change, message):
    with pytest.raises(InputError, match=message):
        tiny_pipeline(*inputs(9), **DRAWN | change)


@pytest.mark.parametrize(
    ("image", "poses", "message"),
    [
        ((30, 48, 3), (9, 30, 48, 3), "multiples of 8; the nearest is 48x32"),
        ((32, 48, 3), (9, 32, 64, 3), "drawn at the size of the image"),
        ((32, 48, 3), (0, 32, 48, 3), "motion must be"),
        ((32, 48, 4), (9, 32, 48, 4), "uint8"),
    ],
)
def test_wrong_sizes_are_explained(tiny_pipeline, image, poses, message):
    with pytest.raises(InputError, match=message):
        tiny_pipeline(np.zeros(image, np.uint8), np.zeros(poses, np.uint8), **DRAWN)


@pytest.mark.parametrize("network", ["unet", "vae"])
def test_a_result_that_is_no_number_is_refused(tiny_pipeline, network):
    """Weights that were damaged on the way give such results."""
    where = " after step 1 of 2" if network == "unet" else ""
    weights = tiny_pipeline.unet.conv_in.kernel if network == "unet" else tiny_pipeline.vae.decoder.conv_in.kernel
    before = weights[...]
    weights.set_value(before.at[0, 0, 0, 0].set(np.nan))
    try:
        with pytest.raises(InputError, match=rf"^the result is not a number{where}: the weights are damaged .*\.$"):
            tiny_pipeline(*inputs(8), **FAST)
    finally:
        weights.set_value(before)
