"""Ways to save memory: the same video, chosen where a device has no room otherwise, and what to do if that fails."""

import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import FEW, SIDE, TINY

from mimicmotion_jax import InputError, MimicMotionPipeline, sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.memory import MemoryPlan, Workload, decoder_temporaries, unet_temporaries
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.xla_report import topology_devices

COMPILED = Path(__file__).parents[2] / "benchmarks" / "results" / "compiled"
BYTES = {"unet": 3_049_246_164, "vae": 195_485_694, "image_encoder": 1_264_153_600, "pose_net": 411_114}


def test_the_same_video(tiny_pipeline):
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(2)]
    poses = random.integers(0, 256, (14, SIDE, SIDE, 3), np.uint8)
    options = FEW | {
        "num_inference_steps": 1,
        "guidance_scale": 3.0,
        "group_size": 2,
        "motion_kind": "skeletons",
        "progress": False,
    }
    low = tiny_pipeline(images, [poses, poses[::-1]], memory="low", **options)
    networks = tiny_pipeline._engine.networks
    on_host = {name for name in networks._fields if isinstance(jax.tree.leaves(getattr(networks, name))[0], np.ndarray)}
    assert on_host == {"unet", "image_encoder", "pose_net"}  # after decoding
    fast = tiny_pipeline(images, [poses, poses[::-1]], memory="fast", **options)
    for one, other in zip(fast, low, strict=True):
        np.testing.assert_allclose(other.frames, one.frames, atol=1e-5)


def workload(chip: str, window: int, spread: int = 1, **options) -> Workload:
    mesh = sharding.sampling_mesh(devices=topology_devices(chip))
    sampling = SamplingConfig(window_size=window, **options)
    return Workload(mesh, ModelConfig(), BYTES, 2, sampling, 1, window, 576, 1024, spread)


@pytest.mark.parametrize(
    ("chip", "window", "options", "expected"),
    [
        ("v5e:1x1", 72, {}, MemoryPlan(in_turn=True, unload=False)),
        ("v5e:1x1", 16, {}, MemoryPlan()),
        ("v5e:1x1", 72, {"memory": "fast"}, MemoryPlan()),
        ("v5e:1x1", 16, {"memory": "low"}, MemoryPlan(in_turn=True, unload=True)),
        ("v5e:1x1", 72, {"guidance_scale": 1.0, "memory": "low"}, MemoryPlan(unload=True)),  # there is one branch
        ("v5e:2x4", 72, {"memory": "low"}, MemoryPlan(unload=True)),  # the branches are on different chips
        ("v5e:1x1", 16, {"decode_chunk_size": 12}, MemoryPlan(unload=True)),
        ("v5e:1x1", 112, {}, MemoryPlan(in_turn=True, unload=True)),
        ("v5p:1x1x1", 72, {}, MemoryPlan()),
    ],
)
def test_choice(chip, window, options, expected):
    assert workload(chip, window, **options).plan() == expected


@pytest.mark.parametrize(
    ("row", "frames"),
    [
        ("sample-a100-1", 32),
        ("sample-h100-1", 32),
        ("sample-h100-1-32-windows", 32),
        ("sample-v5e-1", 32),
        ("sample-v5e-1-72-frames", 72),  # the branches in turn
        ("sample-rtx4090-1-72-frames", 144),
        ("sample-rtx4080-1-72-frames", 72),
        ("sample-rtx4060-1", 16),
        ("sample-rtx4060-1-int8", 32),
        ("sample-h100-1-int8", 32),
    ],
)
def test_estimate(row, frames):
    """At least the temporaries that compilers ask for, and at most 1.4 times."""
    report = json.loads((COMPILED / f"{row}.json").read_text())["report"]
    denoising, decoding = (report[stage]["memory"]["temporaries"] for stage in ("denoising", "decoding"))
    shapes = (72 * 128, 2, ModelConfig(), "tpu" if "v5e" in row else "gpu")
    parameters = report["network_bytes"]["unet"]
    assert denoising <= unet_temporaries(parameters, frames, *shapes) <= 1.4 * denoising
    assert decoding <= decoder_temporaries(8, *shapes) <= 1.4 * decoding


@pytest.mark.slow
def test_it_takes_less_memory(caplog):
    caplog.set_level(logging.INFO)
    options = GenerateConfig(width=64, height=64, num_inference_steps=2, group_size=1)
    pipeline = MimicMotionPipeline.abstract(TINY, "float32", sharding.sampling_mesh(1))
    fast, low = (
        pipeline.lower(7, 64, 64, GenerateConfig(**vars(options) | {"memory": memory}))["run_denoising"]()
        .compile({"xla_backend_optimization_level": 0})
        .memory_analysis()
        .temp_size_in_bytes
        for memory in ("fast", "low")
    )
    assert low < 0.6 * fast
    (line,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("memory"))
    assert line.endswith("branches of guidance in turn, idle networks in the host's memory")
    assert jax.devices()[0].platform == "cpu"  # where nothing is known, nothing is saved


def test_the_choice_in_words():
    work = workload("v5e:1x1", 72)
    assert work.describe(work.plan()) == (
        "memory=auto: denoising takes about 11.7 GB and decoding 11.9 GB of 15.2 GB; branches of guidance in turn, "
        "idle networks on the device"
    )


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        # Networks 4.51 GB, of which 1.46 are not the UNet's; 0.12 for the video and 14.07 for its activations.
        ("denoising", [4.51 + 0.12 + 14.07, 1.46 + 14.07 / 2, 14.07 / 2, 14.07 / 2, (14.07 + 0.12) * 7 / 12]),
        # 4.31 GB are not the VAE's; 7.37 for eight frames.
        ("decoding", [11.9, 4.31, 7.37 / 2, 7.37 * 7 / 12]),
    ],
)
def test_what_frees_memory(stage, expected):
    advice = workload("v5e:1x1", 72, memory="fast").advise(stage)
    options = {
        "denoising": ["memory=low", "2 devices in place of 1", "window_size=36", "height=384 width=640"],
        "decoding": ["memory=low", "decode_chunk_size=4", "height=384 width=640"],
    }
    needs, *freed = (f"{size:.1f} GB" for size in expected)
    sentences = ", ".join(f"{option} frees {size}" for option, size in zip(options[stage], freed, strict=True))
    assert advice == f"{stage} takes about {needs} of 15.2 GB; {sentences}"


def test_a_video_that_a_device_has_no_room_for(tiny_pipeline):
    """The error is jax's own: the decoder's activations at 16384x16384 take 34 GB each."""
    latents = np.zeros((1, 1, 2048, 2048, 4), np.float32)
    with pytest.raises(InputError) as caught:
        list(tiny_pipeline.decode(latents, SamplingConfig()))
    assert str(caught.value) == (
        "the device's memory does not suffice; decoding takes about 138.4 GB; height=10920 width=10920 frees 76.9 GB."
    )
