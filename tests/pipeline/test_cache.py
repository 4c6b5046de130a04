"""Deep features that are kept for some steps: against a loop by hand, and the work that is saved."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, TWO_RESOLUTIONS

from mimicmotion_jax import InputError, MimicMotionPipeline, sharding
from mimicmotion_jax.cli.compile_only import report_generation
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.inference.layout import lay_out
from mimicmotion_jax.inference.memory import Workload
from mimicmotion_jax.inference.options import GenerateConfig, load_options
from mimicmotion_jax.inference.progress import Progress
from mimicmotion_jax.models.encode import embed_image, encode_image, to_signed
from mimicmotion_jax.models.execution import DEFAULT
from mimicmotion_jax.runtime.flops import count_flops
from mimicmotion_jax.xla_report import compile_report

HEIGHT, WIDTH, STEPS = 32, 48, 5
DRAWN = {"motion_kind": "skeletons", "progress": False, "output_type": "latent", "keep_reference_frame": True}


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    poses = random.integers(0, 256, (8, HEIGHT, WIDTH, 3), np.uint8)
    return image, poses, random.normal(size=(8, HEIGHT // 8, WIDTH // 8, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def loop_by_hand(tiny_pipeline, inputs):
    """A function from interval and depth to latents: one window, branches of guidance in turn, Euler steps."""
    image, poses, noise = inputs
    unet = tiny_pipeline.unet
    context = embed_image(tiny_pipeline.image_encoder, image[None])
    reference = encode_image(tiny_pipeline.vae, image[None], np.zeros((1, *image.shape), np.float32))
    reference = jnp.broadcast_to(reference[:, None], (1, *noise.shape))
    drawn = jax.jit(lambda pose_net, x: pose_net(to_signed(x)))(tiny_pipeline.pose_net, jnp.asarray(poses[None]))
    make_conditions = jax.jit(lambda unet, *args: unet.conditions(*args, 8))
    run = jax.jit(lambda depth, unet, deep, *args: unet.predict(*args, depth=depth, deep=deep), static_argnums=0)
    ids = jnp.array([[6.0, 127, 0]])
    branches = [
        (make_conditions(unet, context * factor, ids), reference * factor, drawn * factor) for factor in (0.0, 1.0)
    ]

    def generate(interval, depth, scale=2.0):
        sigmas = SamplingConfig(num_inference_steps=STEPS).sigmas.astype(np.float64)
        x, kept = noise * np.sqrt(sigmas[0] ** 2 + 1), [None, None]
        for step, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
            norm, v = np.sqrt(sigma**2 + 1), []
            for branch, (conditions, latents, features) in enumerate(branches):
                sample = jnp.concatenate([(x / norm)[None], latents], axis=-1).astype(jnp.float32)
                deep = None if step % interval == 0 else kept[branch]
                c_noise = jnp.full(1, np.log(sigma) / 4, jnp.float32)
                out, kept[branch] = run(depth, unet, deep, sample, c_noise, conditions, features)
                v.append(np.asarray(out[0], np.float64))
            v = v[0] + scale * (v[1] - v[0])
            denoised = x / norm**2 - sigma / norm * v
            x = x + (following - sigma) / sigma * (x - denoised)
        return x

    return generate


@pytest.mark.slow
@pytest.mark.parametrize(("interval", "depth"), [(1, 1), (2, 1), (3, 1), (3, 2)])
def test_matches_a_loop_by_hand(tiny_pipeline, inputs, loop_by_hand, interval, depth):
    image, poses, noise = inputs
    cache = {"cache_interval": interval, "cache_depth": depth}
    found = tiny_pipeline(image, poses, latents=noise, num_inference_steps=STEPS, **cache, **DRAWN).frames
    expected = loop_by_hand(interval, depth)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    if interval > 1:  # and the features do something
        assert np.abs(loop_by_hand(1, depth) - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("guided", [{"guidance_scale": 2.0}, {"guidance_interval": (0.01, 100)}])
def test_windows_branches_and_devices_keep_their_own_features(tiny_pipeline, guided):
    """Several windows, branches together or in turn, on one device or eight: the same video."""
    random = np.random.default_rng(1)
    poses = random.integers(0, 256, (14, 64, 64, 3), np.uint8)
    options = {"num_inference_steps": 5, "cache_interval": 2, "window_overlap": 2, **guided, **DRAWN}
    eight = MimicMotionPipeline.random(TINY, dtype="float32", mesh=sharding.sampling_mesh(8))
    expected = tiny_pipeline(poses[0], poses, **options).frames
    for pipeline, changes in ((tiny_pipeline, {"memory": "low"}), (tiny_pipeline, {"group_size": 2}), (eight, {})):
        found = pipeline(poses[0], poses, **options, **changes).frames
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    window = tiny_pipeline(poses[0], poses[:8], **options).frames
    found = eight(poses[0], poses[:8], **options).frames  # its frames are spread
    np.testing.assert_allclose(found, window, atol=1e-5 * np.abs(window).max())


@pytest.mark.slow
def test_a_callback_sees_every_step(tiny_pipeline, inputs):
    image, poses, noise = inputs
    options = {"latents": noise, "num_inference_steps": STEPS, "cache_interval": 3, **DRAWN}
    seen = []
    watched = tiny_pipeline(image, poses, callback_on_step_end=lambda _, step, *rest: seen.append(step), **options)
    assert seen == list(range(STEPS))
    np.testing.assert_array_equal(watched.frames, tiny_pipeline(image, poses, **options).frames)


@pytest.mark.slow
def test_a_killed_call_goes_on_from_a_whole_step(tiny_pipeline, inputs, tmp_path, monkeypatch):
    """Features are not saved: in steps that need some, nothing is."""
    image, poses, noise = inputs
    options = {"latents": noise, "num_inference_steps": STEPS, "cache_interval": 3, **DRAWN}
    whole, saved, save = tiny_pipeline(image, poses, **options).frames, [], Progress.save

    class Killed(BaseException):
        pass

    def dying(self, step, *rest):
        save(self, step, *rest)
        saved.append(step)
        if saved == [3]:
            raise Killed

    monkeypatch.setattr(Progress, "save", dying)
    resumed = {"resume_dir": tmp_path, "save_seconds": 0, **options}
    with pytest.raises(Killed):
        tiny_pipeline(image, poses, **resumed)
    np.testing.assert_array_equal(tiny_pipeline(image, poses, **resumed).frames, whole)
    assert saved == [3, STEPS]


@pytest.mark.slow
def test_the_report_adds_up_all_steps():
    options = {"width": 64, "height": 64}
    plain = report_generation(GenerateConfig(**options, num_inference_steps=1), TINY, "float32")
    cached = report_generation(GenerateConfig(**options, num_inference_steps=3, cache_interval=2), TINY, "float32")
    assert [program["calls"] for program in plain["denoising_programs"]] == [1]
    whole, last = cached["denoising_programs"]
    assert (whole["calls"], last["calls"]) == (2, 1)
    assert cached["denoising"]["flops_per_chip"] == 2 * whole["flops_per_chip"] + last["flops_per_chip"]
    assert whole["flops_per_chip"] == pytest.approx(plain["denoising"]["flops_per_chip"], rel=0.01)


@pytest.mark.slow
def test_features_are_spread_over_the_devices():
    """Eight windows and one window on eight devices: each holds an eighth of them."""
    eight = MimicMotionPipeline.abstract(TINY, "float32", sharding.sampling_mesh(8))
    for num_frames in (43, 7):
        options = GenerateConfig(width=64, height=64, window_overlap=2, num_inference_steps=2, cache_interval=2)
        lowered = eight.lower(num_frames, 64, 64, options)["run_denoising"]()
        compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
        features, placed = lowered.out_info[1], compiled.output_shardings[1]
        assert np.prod(placed.shard_shape(features.shape)) == features.size // 8


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_work_that_is_saved(compiled):
    """By the compiler or from the jaxpr; the parts that are left out are counted one by one."""
    options = GenerateConfig(width=64, height=64, num_inference_steps=STEPS, cache_interval=3, guidance_scale=1.0)
    mesh = sharding.sampling_mesh(1)
    pipeline = MimicMotionPipeline.abstract(TWO_RESOLUTIONS, "float32", mesh)
    programs = pipeline.lower(7, 64, 64, options)
    whole, last = programs["run_denoising"], programs["run_denoising_2"]
    assert (whole.calls, last.calls) == (2, 3)
    unet = pipeline.unet

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    conditions = jax.eval_shape(lambda unet, *args: unet.conditions(*args, 8), unet, array(1, 16), array(1, 3))
    width, embedding = TWO_RESOLUTIONS.unet.block_out_channels, conditions.embedding
    fine, coarse = (1, 8, 8, 8), (1, 8, 4, 4)

    def layer(stage, index, x, constants):
        return count_flops(
            lambda stage, x, e, c: stage.layer(index, x, e, c, DEFAULT),
            stage,
            x,
            embedding,
            constants,
            skip_padding=True,
        )

    down, up = unet.down_blocks, unet.up_blocks
    skipped = [
        layer(down[0], 0, array(*fine, width[0]), conditions.down[0]),
        count_flops(lambda d, x: d(x), down[0].downsamplers[0], array(*fine, width[0]), skip_padding=True),
        layer(down[1], 0, array(*coarse, width[0]), conditions.down[1]),
        count_flops(
            lambda m, *args: m(*args, DEFAULT),
            unet.mid_block,
            array(*coarse, width[1]),
            embedding,
            conditions.mid,
            skip_padding=True,
        ),
        layer(up[0], 0, array(*coarse, 2 * width[1]), conditions.up[0]),
        layer(up[0], 1, array(*coarse, width[1] + width[0]), conditions.up[0]),
        count_flops(lambda u, x: u(x), up[0].upsamplers[0], array(*coarse, width[1]), skip_padding=True),
        layer(up[1], 0, array(*fine, width[1] + width[0]), conditions.up[1]),
    ]
    if compiled:
        fast = {"xla_backend_optimization_level": 0}  # it changes no FLOPs
        flops = [compile_report(program(), mesh, compiler_options=fast).flops_per_chip for program in (whole, last)]
    else:
        inputs = array(*fine, 8), array(1), conditions, array(*fine, width[0])
        predict = [
            lambda unet, deep, *args: unet.predict(*args),
            lambda unet, deep, *args: unet.predict(*args, deep=deep),
        ]
        flops = [count_flops(f, unet, array(*fine, width[0]), *inputs, skip_padding=True) for f in predict]
    assert flops[0] - flops[1] == pytest.approx(sum(skipped), rel=0.01)
    assert flops[1] < 0.4 * flops[0]


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_bytes_of_the_features(depth):
    """The estimate of the memory takes as much for them as the program returns."""
    options = GenerateConfig(
        width=64, height=64, num_inference_steps=2, cache_interval=2, cache_depth=depth, window_overlap=2
    )
    pipeline = MimicMotionPipeline.abstract(TWO_RESOLUTIONS, "float32", sharding.sampling_mesh(1))
    _, features = pipeline.lower(20, 64, 64, options)["run_denoising"]().out_info
    work = Workload(pipeline.mesh, TWO_RESOLUTIONS, {}, 4, options, 1, 21, 64, 64)
    assert work._cache_bytes(64) == sum(x.size * 4 for x in jax.tree.leaves(features))


def test_steps_with_the_whole_unet():
    assert SamplingConfig(num_inference_steps=5).whole_steps.all()
    np.testing.assert_array_equal(SamplingConfig(num_inference_steps=5, cache_interval=3).whole_steps, [1, 0, 0, 1, 0])
    # Levels 700, 110, 4.6 and 0.002: guidance begins and ends, and features of one kind do not fit the other.
    changing = SamplingConfig(num_inference_steps=4, cache_interval=4, guidance_interval=(0.01, 150))
    np.testing.assert_array_equal(changing.whole_steps, [1, 1, 0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cache_interval=0"], "cache_interval"),
        (["cache_depth=0", "cache_interval=2"], "cache_depth"),
        (
            ["cache_interval=9", "num_inference_steps=8"],
            r"cache_interval \(9\) must not be above the steps \(8\)",
        ),
        (["cache_interval=2", "sampler=heun"], "heun predicts twice a step; take sampler=euler or dpmpp_2m"),
    ],
)
def test_bad_values_are_explained(options, message):
    with pytest.raises(InputError, match=message) as error:
        load_options(overrides=options)
    assert "\n" not in str(error.value)


def test_a_cache_deeper_than_the_network():
    options = SamplingConfig(cache_interval=2, cache_depth=3)
    with pytest.raises(InputError, match=r"cache_depth=3: this UNet has 2 layers that can be computed anew\."):
        lay_out(sharding.sampling_mesh(1), TINY, options, 1, 8, 32, 48)
