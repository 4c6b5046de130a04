"""Costs read from programs compiled for absent TPU slices and for the CPU, against counts of their jaxprs."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AxisType, NamedSharding
from programs import PROGRAMS, ROWS, WHOLE, chain, mesh, report, shape

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.flops import count_flops
from mimicmotion_jax.runtime.hardware import memory_bytes, peak_flops
from mimicmotion_jax.xla_report import compile_report, topology_devices
from mimicmotion_jax.xla_report.costs import program_costs
from mimicmotion_jax.xla_report.report import describe


@pytest.mark.parametrize("platform", ["cpu", "v5e:2x2"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_flops_are_those_of_the_jaxpr(platform, name):
    fn, arguments, specs = PROGRAMS[name]
    found = report(platform, fn, arguments, specs)
    expected = count_flops(fn, *arguments, skip_padding=True) / 4
    # The TPU compiler may cut images of a small batch into overlapping strips to fill its lanes: real work, a bit more.
    slack = 0.3 if "convolution" in name and platform != "cpu" else 0.001
    assert expected * 0.999 <= found.flops_per_chip <= expected * (1 + slack)
    assert found.unknown_loops == 0
    assert found.chips == 4


def test_loops_are_what_xla_misses():
    fn, arguments, specs = PROGRAMS["scan"]
    found = report("v5e:2x2", fn, arguments, specs)
    assert found.flops_per_chip == 10 * 2 * 1024 * 256 * 256 / 4
    assert found.xla_flops_per_chip < 0.2 * found.flops_per_chip


@pytest.mark.parametrize(("platform", "width"), [("cpu", 4), ("v5e:2x2", 2)])
def test_collectives_in_loops_count_once_per_iteration(platform, width):
    fn, arguments, specs = PROGRAMS["scan gradient"]
    found = report(platform, fn, arguments, specs)
    # One gradient of a 256 x 256 weight per layer, summed over the chips; the CPU computes bfloat16 in float32.
    assert set(found.collectives) == {"all-reduce"}
    assert found.collective_bytes == 10 * 256 * 256 * width


def test_all_gather_bytes_are_the_outputs():
    found = report("v5e:2x2", lambda x: x @ x, [shape(1024, 1024)], [ROWS])
    assert "all-gather" in found.collectives
    assert found.collectives["all-gather"].bytes == 1024 * 1024 * 2


def test_memory_and_json():
    x = shape(1024, 1024, dtype=jnp.float32)
    sharding = NamedSharding(mesh("v5e:2x2"), ROWS)
    lowered = jax.jit(lambda x: 2 * x, donate_argnums=0, in_shardings=sharding, out_shardings=sharding).lower(x)
    found = compile_report(lowered, mesh("v5e:2x2"), resident_bytes=7)
    memory = found.memory
    assert memory.arguments == memory.outputs == memory.donated == 2**20
    assert memory.total == 2**20 + memory.temporaries + memory.code + 7
    assert found.fits is True
    assert found.device_kind == "TPU v5 lite"
    again = json.loads(json.dumps(found.to_json()))
    assert again["memory"]["total"] == memory.total
    assert again["memory_limit"] == memory_bytes("TPU v5 lite")


def test_too_large_is_a_report():
    found = report("v5e:2x2", lambda x: jnp.sort(x, 0), [shape(2**23, 1024)], [WHOLE])
    assert found.fits is False
    assert "exceeds" in found.problem
    # The array alone is 16 GiB, its sorted copy as much.
    assert found.memory_needed >= 2 * 2**34 > found.memory_limit
    assert found.flops_per_chip is None
    assert report("v5e:2x2", jnp.sin, [shape(8, 8)], [WHOLE], resident_bytes=2**34).fits is False


def test_kernels_are_counted_by_name():
    def kernel(a, b, out):
        out[...] = jnp.dot(a[...], b[...], preferred_element_type=jnp.float32)

    def product(a, b):
        out = pl.pallas_call(kernel, out_shape=shape(256, 256, dtype=jnp.float32), name="product")
        return out(a, b) + out(2 * a, b)

    call = jax.shard_map(product, mesh=mesh("v5e:2x2"), in_specs=(WHOLE, WHOLE), out_specs=WHOLE, check_vma=False)
    arguments = [shape(256, 128), shape(128, 256)]
    found = report("v5e:2x2", call, arguments, [WHOLE, WHOLE])
    assert found.custom_calls == found.uncounted_calls == {"product": 2}
    assert found.flops_per_chip == 0
    counted = report(
        "v5e:2x2", call, arguments, [WHOLE, WHOLE], kernel_flops={"product": lambda s: 2 * s[0][0] * s[0][1] * s[1][1]}
    )
    assert counted.uncounted_calls == {}
    assert counted.flops_per_chip == 2 * 2 * 256 * 128 * 256


def test_most_expensive_branch_and_loop_of_unknown_trip_count():
    def fn(x, w, trip_count):
        x = jax.lax.cond(x[0, 0] > 0, lambda: jnp.tanh(x @ w) @ w, lambda: x @ w)
        return jax.lax.fori_loop(0, trip_count, lambda _, x: jnp.tanh(x @ w), x)

    found = report("cpu", fn, [shape(64, 64, dtype=jnp.float32)] * 2 + [shape(dtype=jnp.int32)], [WHOLE, WHOLE, WHOLE])
    assert found.flops_per_chip == 3 * 2 * 64**3
    assert found.unknown_loops == 1


def test_unrolled_loop_is_counted_by_its_step():
    text = """HloModule m

%condition (p: (u32[], f32[4,4], u32[])) -> pred[] {
  %p = (u32[], f32[4,4]{1,0}, u32[]) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  %limit = u32[]{:T(128)} get-tuple-element(%p), index=2
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (p: (u32[], f32[4,4], u32[])) -> (u32[], f32[4,4], u32[]) {
  %p = (u32[], f32[4,4]{1,0}, u32[]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %x = f32[4,4]{1,0} get-tuple-element(%p), index=1
  %limit = u32[] get-tuple-element(%p), index=2
  %two = u32[] constant(2)
  %next = u32[] add(%i, %two), metadata={op_name="f"}
  %y = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (u32[], f32[4,4]{1,0}, u32[]) tuple(%next, %y, %limit)
}

ENTRY %main (x: f32[4,4]) -> (u32[], f32[4,4], u32[]) {
  %x = f32[4,4]{1,0} parameter(0)
  %one = u32[] constant(1), metadata={op_name="(7)"}
  %start = u32[] copy(%one)
  %eight = u32[] constant(8)
  %t = (u32[], f32[4,4]{1,0}, u32[]) tuple(%start, %x, %eight)
  ROOT %loop = (u32[], f32[4,4]{1,0}, u32[]) while(%t), condition=%condition, body=%body
}
"""
    costs = program_costs(text)
    assert costs.flops == 4 * 2 * 4**3  # 1, 3, 5, 7
    assert costs.unknown_loops == 0
    assert program_costs(text.replace("add(%i, %two)", "add(%i, %i)")).unknown_loops == 1


def test_sharded_weights_on_a_slice():
    def loss(weight, x):
        return jnp.mean((x @ weight).astype(jnp.float32) ** 2)

    devices = topology_devices("v5p:2x2x2")
    eight = jax.make_mesh((8,), ("x",), devices=devices, axis_types=(AxisType.Auto,))
    rows = NamedSharding(eight, ROWS)
    arguments = shape(1024, 4096), shape(8192, 1024)
    lowered = jax.jit(jax.grad(loss), in_shardings=rows, out_shardings=rows).lower(*arguments)
    found = compile_report(lowered, eight)
    # The compiler makes loops around the matrix products of the gather and the reduction, and unrolls them.
    assert found.flops_per_chip * 8 == pytest.approx(count_flops(jax.grad(loss), *arguments), rel=1e-6)
    assert found.unknown_loops == 0
    assert found.collectives["collective-permute"].count > 8


def test_asynchronous_collectives_count_once():
    text = """HloModule m

%wrapped (p: f32[8,4]) -> f32[2,4] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %rs = f32[2,4]{1,0} reduce-scatter(%p), dimensions={0}, to_apply=%add
}

ENTRY %main (a: f32[2,4]) -> f32[8,4] {
  %a = f32[2,4]{1,0:T(2,128)} parameter(0)
  %ags = (f32[2,4]{1,0:T(2,128)}, f32[8,4]{1,0:T(8,128)S(1)}) all-gather-start(%a), dimensions={0}
  %agd = f32[8,4]{1,0:T(8,128)S(1)} all-gather-done(%ags)
  %rss = ((f32[8,4]{1,0}), f32[2,4]{1,0}, u32[]{:S(2)}) async-start(%agd), calls=%wrapped
  %rsd = f32[2,4]{1,0} async-done(%rss), calls=%wrapped
  ROOT %d = f32[8,8]{1,0} dot(%agd, %agd), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
"""
    costs = program_costs(text)
    assert costs.flops == 2 * 8 * 8 * 4
    assert {kind: (traffic.count, traffic.bytes) for kind, traffic in costs.collectives.items()} == {
        "all-gather": (1, 8 * 4 * 4),
        "reduce-scatter": (1, 8 * 4 * 4),
    }


def test_a_gather_that_overlaps_other_work_counts_once():
    text = """HloModule m

%first (p: f32[2,4]) -> (f32[2,4], f32[8,4], u32[]) {
  %p = f32[2,4]{1,0} parameter(0)
  %ag.1 = f32[8,4]{1,0} all-gather(%p), channel_id=5, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %start = (f32[2,4]{1,0}, f32[8,4]{1,0}, u32[]) custom-call(%ag.1), custom_call_target="AsyncCollectiveStart"
}

%middle (p: f32[2,4], w: f32[4,4]) -> (f32[8,4], f32[2,4]) {
  %p = f32[2,4]{1,0} parameter(0)
  %w = f32[4,4]{1,0} parameter(1)
  %ag.2 = f32[8,4]{1,0} all-gather(%p), channel_id=5, dimensions={0}, frontend_attributes={chain_id="0"}
  %d = f32[2,4]{1,0} dot(%p, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (f32[8,4]{1,0}, f32[2,4]{1,0}) tuple(%ag.2, %d)
}

%last (p: f32[2,4], b: f32[8,4]) -> f32[8,4] {
  %p = f32[2,4]{1,0} parameter(0)
  %b = f32[8,4]{1,0} parameter(1)
  %ag.3 = f32[8,4]{1,0} all-gather(%p), channel_id=5, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %done = f32[8,4]{1,0} custom-call(%b, %ag.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: f32[2,4], w: f32[4,4]) -> f32[8,4] {
  %a = f32[2,4]{1,0} parameter(0)
  %w = f32[4,4]{1,0} parameter(1)
  %s = (f32[2,4]{1,0}, f32[8,4]{1,0}, u32[]) fusion(%a), kind=kLoop, calls=%first
  %m = (f32[8,4]{1,0}, f32[2,4]{1,0}) fusion(%a, %w), kind=kOutput, calls=%middle
  %b = f32[8,4]{1,0} get-tuple-element(%m), index=0
  ROOT %e = f32[8,4]{1,0} fusion(%a, %b), kind=kLoop, calls=%last
}
"""
    costs = program_costs(text)
    assert costs.flops == 2 * 2 * 4 * 4
    assert {kind: (traffic.count, traffic.bytes) for kind, traffic in costs.collectives.items()} == {
        "all-gather": (1, 8 * 4 * 4)
    }


def test_a_program_that_cannot_be_read_back_still_has_its_memory():
    """Some programs for v6e cannot be read back in jax 0.10."""

    class Unreadable:
        def __init__(self, compiled):
            self.memory_analysis = compiled.memory_analysis

        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure\nand a trace")

    here = mesh("v5e:2x2")
    weights = [jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=NamedSharding(here, WHOLE))] * 2
    compiled = jax.jit(jnp.matmul).lower(*weights).compile()
    found, whole = (describe(program, here, 1.0) for program in (Unreadable(compiled), compiled))
    assert found.memory == whole.memory
    assert found.fits
    assert found.flops_per_chip is None
    assert found.collective_bytes is None
    assert found.problem == "the compiled program cannot be read back: INTERNAL: RET_CHECK failure"
    assert json.dumps(found.to_json())


def test_estimated_cycles_count_loops_once_per_iteration():
    """A v5e does four times 128 x 128 multiplications per cycle; a large product comes near that."""
    least = 4096**3 / (4 * 128 * 128)
    weights = [shape(layers, 4096, 4096) for layers in (3, 6)]
    short, long = (report("v5e:2x2", chain, [shape(16384, 4096), w], [ROWS, WHOLE]).estimated_cycles for w in weights)
    assert 3 * least < short["dot_general"] < 1.5 * 3 * least
    assert long["dot_general"] == pytest.approx(2 * short["dot_general"], rel=0.05)


def test_chips():
    assert [len(topology_devices(name)) for name in ("v5e:1x1", "v5p:2x2x2", "v6e:4x4")] == [1, 8, 16]
    kinds = [topology_devices(name)[0].device_kind for name in ("v5e:2x2", "v5p:2x2x1", "v6e:2x2")]
    assert [peak_flops(kind) for kind in kinds] == [197e12, 459e12, 918e12]
    assert [round(memory_bytes(kind) / 2**30) for kind in kinds] == [16, 96, 31]
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert memory_bytes("NVIDIA A100-SXM4-40GB") == 40 * 2**30
    assert peak_flops("cpu") is memory_bytes("cpu") is None
    assert jax.devices()[0].platform == "cpu"  # compiling for TPUs leaves the default where it was


@pytest.mark.parametrize("name", ["v5e", "v5e:2x2x2", "v5p:2x2", "v4:2x2x1", "v5e:0x2", "v5e:3x3", "a100:8x8", ""])
def test_unknown_topologies_are_explained(name):
    with pytest.raises(InputError, match="v5p:2x2x2"):
        topology_devices(name)
