"""GEGLU as one kernel for NVIDIA's Hopper cards, in Pallas (Mosaic GPU): a candidate for the UNet's feed-forwards.

Two products of a block of rows with matching columns of value and gate, accumulated side by side in registers, then
biases, exact GELU and the gate's product before anything is written. XLA instead writes both products and reads them
again: 2.3 GB at 294,912 rows of 320 channels, as long as half the products take.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from card.results import Skipped

_GROUPS = 2  # of four warps each that multiply; a third one copies blocks into shared memory ahead of them
_DEPTH = 64  # channels per step: 128 bytes, the widest rows that shared memory can hold without conflicts
_PART = 32  # columns that are written at a time
_BUFFERS = 2  # of such parts


def load_columns(ref: Any) -> jax.Array:
    """Load a vector such that it can be added to the rows of a product. jax before 0.11 wants an index."""
    load = functools.partial(plgpu.load, layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)
    return load(ref, ()) if jax.__version_info__ < (0, 11) else load(ref)


def geglu(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    rows: int = 64,
    columns: int = 128,
    stages: int = 4,
    processors: int = 132,
    interpret: Any = None,
) -> jax.Array:
    """Compute value * gelu(gate) with [value, gate] = x @ kernel + bias, accumulated in float32.

    Args:
        x: [m, k], bfloat16 or float16; m a multiple of 2 `rows`, k of 64.
        kernel: [k, 2 n], the value's columns first; n a multiple of `columns`.
        bias: [2 n].
        rows: rows of a group of warps.
        columns: of value, and as many of the gate.
        stages: blocks in shared memory ahead of the products.
        processors: streaming multiprocessors of the card.
        interpret: parameters of Pallas' interpreter, for a CPU.
    """
    (m, k), n, dtype = x.shape, kernel.shape[1] // 2, x.dtype
    block = _GROUPS * rows
    if m % block or k % _DEPTH or n % columns:
        raise Skipped(f"{x.shape} times {kernel.shape} is no multiple of the blocks")

    def swizzled(width: int) -> tuple[Any, ...]:
        swizzle = plgpu.find_swizzle(width * dtype.itemsize * 8)
        return plgpu.TilingTransform((8, swizzle // dtype.itemsize)), plgpu.SwizzleTransform(swizzle)

    def copied(shape: tuple[int, int], index: Any) -> plgpu.BlockSpec:
        return plgpu.BlockSpec(shape, index, transforms=swizzled(shape[1]), memory_space=plgpu.SMEM)

    def body(x_gmem: Any, kernel_gmem: Any, bias_gmem: Any, out_gmem: Any, out_smem: Any) -> None:
        halves = [copied((_DEPTH, columns), lambda i: (i, 0))] * 2

        def pipeline(step: Any, context: Any) -> Any:
            return plgpu.emit_pipeline_warp_specialized(
                step,
                grid=(k // _DEPTH,),
                memory_registers=40,
                in_specs=[copied((block, _DEPTH), lambda i: (0, i)), *halves],
                wg_axis="group",
                num_compute_wgs=_GROUPS,
                max_concurrent_steps=stages,
                compute_context=context,
            )

        shapes = pipeline(lambda *_, **__: None, lambda *_: None).get_allocations(x_gmem, kernel_gmem, kernel_gmem)

        @functools.partial(pl.run_scoped, allocations=shapes, collective_axes="group")
        def _(allocations: Any) -> None:
            group = lax.axis_index("group")
            own = pl.ds(group * rows, rows)

            def step(_: Any, x_smem: Any, value_smem: Any, gate_smem: Any, totals: Any) -> Any:
                plgpu.wgmma(totals[0], x_smem.at[own], value_smem)
                plgpu.wgmma(totals[1], x_smem.at[own], gate_smem)
                plgpu.wgmma_wait(0)
                return totals

            @plgpu.nd_loop((m // block * (n // columns),), collective_axes="processor")
            def _(loop: Any) -> None:
                # Neighbours in time share their rows, so that these come from the cache.
                row, column = plgpu.planar_snake(loop.index[0], (m // block, n // columns), 1, 1)
                row_slice, first = pl.ds(row * block, block), column * columns

                def write(value: jax.Array, gate: jax.Array) -> None:
                    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                    for part in range(columns // _PART):
                        along, here = pl.ds(first + part * _PART, _PART), slice(part * _PART, (part + 1) * _PART)
                        biases = (load_columns(bias_gmem.at[half, along]).astype(jnp.float32) for half in range(2))
                        v, g = (
                            half[:, here] + lax.broadcast_in_dim(bias, (rows, _PART), (1,))
                            for half, bias in zip((value, gate), biases, strict=True)
                        )
                        plgpu.wait_smem_to_gmem(_BUFFERS - 1, wait_read_only=True)
                        buffer = out_smem.at[group, part % _BUFFERS]
                        buffer[...] = (v * g * (0.5 + 0.5 * lax.erf(g * 2**-0.5))).astype(dtype)
                        plgpu.commit_smem()
                        plgpu.copy_smem_to_gmem(buffer, out_gmem.at[row_slice, along].at[own])

                def compute(run: Any) -> None:
                    total = plgpu.ACC((rows, columns), jnp.float32)

                    @functools.partial(pl.run_scoped, value=total, gate=total)
                    def _(value: Any, gate: Any) -> None:
                        run((value, gate))
                        write(value[...], gate[...])

                kernels = (kernel_gmem.at[:, pl.ds(half * n + first, columns)] for half in range(2))
                pipeline(step, compute)(x_gmem.at[row_slice, :], *kernels, allocations=allocations)

        plgpu.wait_smem_to_gmem(0, wait_read_only=True)

    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((m, n), dtype),
        scratch_types=[plgpu.SMEM((_GROUPS, _BUFFERS, rows, _PART), dtype, transforms=swizzled(_PART))],
        grid=(processors,),
        grid_names=("processor",),
        num_threads=_GROUPS + 1,
        thread_name="group",
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
        interpret=interpret,
    )(x, kernel, bias.reshape(2, n))
