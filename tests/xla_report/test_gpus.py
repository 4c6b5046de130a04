"""Programs for absent NVIDIA GPUs: costs of their kernels by hand, and XLA's compiler if it is installed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from programs import PROGRAMS, report

from mimicmotion_jax import sharding
from mimicmotion_jax.cli.compile_only import report_generation
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.models.attention import dot_product_attention
from mimicmotion_jax.models.blocks import SpatioTemporalResBlock
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.runtime.flops import count_flops
from mimicmotion_jax.runtime.hardware import memory_bandwidth, memory_bytes
from mimicmotion_jax.xla_report import compile_report, topology_devices
from mimicmotion_jax.xla_report.costs import program_costs

PEAKS = (1e12, 1e9)  # FLOP/s, bytes/s: 1000 FLOPs a byte


def costs(*lines):
    text = "\n".join(("ENTRY %main (x: f32[2]) -> f32[2] {", *(f"  {line}" for line in lines), "}"))
    return program_costs(text, peaks=PEAKS)


def convolution(result, operands, target):
    arguments = ", ".join(f"%{name}" for name in operands)
    return (
        *(f"%{name} = bf16[{shape}]{{3,2,1,0}} parameter({i})" for i, (name, shape) in enumerate(operands.items())),
        f"%conv = (bf16[{result}]{{3,2,1,0}}, u8[0]{{0}}) custom-call({arguments}), "
        "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, "
        f'custom_call_target="__cudnn$conv{target}"',
    )


PICTURE, KERNEL, RESULT = "2,8,16,32", "64,3,3,32", "2,4,8,64"


@pytest.mark.parametrize(
    ("target", "result", "operands"),
    [
        ("Forward", RESULT, {"x": PICTURE, "kernel": KERNEL}),
        ("BiasActivationForward", RESULT, {"x": PICTURE, "kernel": KERNEL, "bias": "1,1,1,64"}),
        ("BackwardInput", PICTURE, {"dy": RESULT, "kernel": KERNEL}),
        ("BackwardFilter", KERNEL, {"x": PICTURE, "dy": RESULT}),
    ],
)
def test_cudnn_convolutions(target, result, operands):
    """A strided convolution and its gradients; one of three kernel rows and columns lies on padding in front."""
    found = costs(*convolution(result, operands, target))
    assert found.flops == 2 * 2 * 32 * 64 * (4 * 3 - 1) * (8 * 3 - 1)
    sizes = (8 * 16 * 32, 9 * 32 * 32, 4 * 8 * 64)  # halves of the elements; bfloat16 has two bytes
    moved = 4 * sum(sizes) + (128 if "bias" in operands else 0)
    assert found.least_seconds == {"convolution": max(found.flops / PEAKS[0], moved / PEAKS[1])}
    assert found.uncounted_calls == {}


@pytest.mark.parametrize(
    ("name", "products"), [("fmhaSoftmax", 2), ("fmhaScaleBiasSoftmax", 2), ("fmhaSoftmaxBackward", 5)]
)
def test_cudnn_attention(name, products):
    found = costs(
        "%q = bf16[3,128,5,64]{3,2,1,0} parameter(0)",
        "%k = bf16[3,96,5,64]{3,2,1,0} parameter(1)",
        "%a = (bf16[3,5,128,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %k, %k), "
        f'custom_call_target="__cudnn${name}", operand_layout_constraints={{}}',
    )
    assert found.flops == products * 2 * 3 * 5 * 128 * 96 * 64
    assert list(found.least_seconds) == ["attention"]


def test_slices_of_an_operand_count_in_part():
    text = """HloModule m

%row (p0: f32[100,50], p1: s32[]) -> f32[1,50] {
  %p0 = f32[100,50]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,50]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,50}
  ROOT %sine = f32[1,50]{1,0} sine(%slice)
}

ENTRY %main (x: f32[100,50], i: s32[]) -> f32[100,50] {
  %x = f32[100,50]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %none = s32[] constant(0)
  %fused = f32[1,50]{1,0} fusion(%x, %i), kind=kLoop, calls=%row
  ROOT %new = f32[100,50]{1,0} dynamic-update-slice(%x, %fused, %i, %none)
}
"""
    seconds = program_costs(text, peaks=PEAKS).least_seconds
    assert seconds == pytest.approx({"elementwise": (2 * 200 + 4) / PEAKS[1], "copy": 400 / PEAKS[1]})


@pytest.mark.parametrize("name", ["h100", "h100:0", "h100:2x2", "b300:1", "a100:-1"])
def test_unknown_gpus_are_explained(name):
    with pytest.raises(ValueError, match="a100:8, h100:1, h200:1, rtx4090:1"):
        topology_devices(name)


# The tests below need jax's CUDA plugin, which compiles without a GPU: pip install -e ".[cuda]", then
# JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 python -m pytest -m cuda_compiler


@pytest.mark.cuda_compiler
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_flops_are_those_of_the_jaxpr(name):
    fn, arguments, specs = PROGRAMS[name]
    found = report("h100:4", fn, arguments, specs)
    assert found.flops_per_chip == pytest.approx(count_flops(fn, *arguments, skip_padding=True) / 4, rel=0.001)
    assert found.unknown_loops == 0
    assert sum(found.least_seconds.values()) > found.flops_per_chip / 989e12
    assert memory_bandwidth(found.device_kind) == 3.35e12


@pytest.mark.cuda_compiler
@pytest.mark.parametrize(
    ("name", "capability"), [("a100", "8.0"), ("h100", "9.0"), ("rtx4090", "8.9"), ("rtx4060", "8.9")]
)
def test_cards_by_name(name, capability):
    (device,) = topology_devices(f"{name}:1")
    assert device.compute_capability == capability
    assert memory_bytes(device.device_kind) == {"a100": 80, "h100": 80, "rtx4090": 24, "rtx4060": 8}[name] * 2**30


@pytest.mark.cuda_compiler
@pytest.mark.parametrize(
    ("sizes", "kernels", "joined"),
    [
        ((8, 1024, 5, 64), ("fmhaSoftmax", "fmhaSoftmaxBackward"), 1),
        (
            (64, 16, 5, 64),
            ("fmhaScaleBiasSoftmax",),
            8,
        ),  # eight sequences packed, masked from each other; gradients in XLA
        (
            (64, 25, 5, 64),
            ("fmhaScaleBiasSoftmax",),
            4,
        ),  # five sequences of 25 tokens would fit, but have an odd length
        ((64, 72, 5, 64), ("fmhaSoftmax", "fmhaSoftmaxBackward"), 1),
    ],
)
def test_attention_is_cudnns(sizes, kernels, joined):
    """On four GPUs, each with a quarter of the sequences: two products forward, five backward."""
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topology_devices("h100:4")), 4, 1, 1, 1)
    execution = sharding.sampling_execution(mesh)
    assert execution.cudnn_attention
    x = jax.ShapeDtypeStruct(sizes, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(sharding.WINDOWS)))
    attend = functools.partial(dot_product_attention, execution=execution)

    @jax.jit
    def forwards_and_backwards(gradient, *qkv):
        attended, pull_back = jax.vjp(attend, *qkv)
        return attended, pull_back(gradient)

    report = compile_report(forwards_and_backwards.lower(x, x, x, x), mesh)
    found = {name: count for name, count in report.custom_calls.items() if "fmha" in name}
    assert found == {f"__cudnn${kernel}": 1 for kernel in kernels}
    assert not report.uncounted_calls
    assert not report.collectives
    batch, tokens, heads, dim = sizes
    assert report.flops_per_chip == (2 * joined + 5) * 2 * (batch // 4) * heads * tokens**2 * dim


@pytest.mark.cuda_compiler
@pytest.mark.parametrize(("devices", "num_frames"), [(1, 7), (8, 7), (8, 12)])
def test_generation_compiles(devices, num_frames):
    """One window on one GPU, one over eight, two over eight: each with cuDNN's attention."""
    tiny = ModelConfig.tiny()
    config = GenerateConfig(width=64, height=64, window_overlap=2, num_inference_steps=3, num_frames=num_frames)
    report = report_generation(config, tiny, "bfloat16", f"a100:{devices}")
    assert report["denoising"]["fits"]
    assert any("fmha" in name for name in report["denoising"]["custom_calls"])
    assert report["denoising"]["uncounted_calls"] == report["decoding"]["uncounted_calls"] == {}
    np.testing.assert_array_less(0, list(report["denoising"]["least_seconds"].values()))


@pytest.mark.cuda_compiler
def test_passes_over_memory_of_a_residual_block():
    """Four norms that read their input twice and write a result; embedding, sums and mixture have none of their own."""
    frames, positions, channels = 32, 64 * 64, 320
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topology_devices("h100:1")), 1, 1, 1, 1)
    here = sharding.replicated(mesh)
    block = nnx.eval_shape(
        lambda: SpatioTemporalResBlock(Init(nnx.Rngs(0), jnp.bfloat16), channels, channels, 64, 1e-6)
    )
    graph, params = nnx.split(block)
    x = jax.ShapeDtypeStruct((2, frames // 2, 64, 64, channels), jnp.bfloat16)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        (params, x, jax.ShapeDtypeStruct((2, 64), jnp.bfloat16)),
    )

    def run(params, x, embedding):
        return nnx.merge(graph, params)(x, embedding, sharding.sampling_execution(mesh))

    seconds = compile_report(jax.jit(run).lower(*shapes), mesh).least_seconds
    one_pass = 2 * frames * positions * channels / 3.35e12
    assert seconds["elementwise"] + seconds["reduction"] + seconds["copy"] == pytest.approx(12 * one_pass, rel=0.06)
