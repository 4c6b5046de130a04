"""GEGLU as one kernel for NVIDIA's Hopper cards, in Pallas (Mosaic GPU); `fused_geglu` decides when it is used.

A block of rows is multiplied by matching columns of value and gate, accumulated side by side in registers; biases, GELU
and the gate's product follow before anything is written. XLA instead writes both products and reads them again: 2.3 GB
at 294,912 rows of 320 channels, as long as the products themselves take.
"""
# pyright: reportPrivateImportUsage=false
# (jax's documentation uses plgpu.ACC, which its module does not mark as exported)

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from mimicmotion_jax.models.fused_geglu import BLOCK, COLUMNS, DEPTH, STAGES

_GROUPS = 2  # of four warps each that multiply; a third one copies blocks into shared memory ahead of them
_ROWS = BLOCK // _GROUPS
_PART = 32  # columns that are written at a time
_BUFFERS = 2  # of such parts
_PROCESSORS = 132  # streaming multiprocessors of an H100 SXM; on a card with fewer some take a second turn

# (CDF(x) - 1/2) / x of the normal distribution on |x| <= 5.5 as P(x^2) / Q(x^2); CDF is off by 1.7e-6 at most. Fitted
# by iterated least squares with the error's own size as weight.
_CLIP = 5.5
_P = (0.3989507854, 0.02856333926, 0.004201260861, 4.859748879e-05, -1.039715443e-07)
_Q = (1.0, 0.2383614182, 0.02513217926, 0.001402170281)


def normal_cdf(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """CDF of the normal distribution in a dozen instructions, half of what erf takes."""
    x = jnp.clip(x, -_CLIP, _CLIP)
    square = x * x

    def polynomial(coefficients: tuple[float, ...]) -> jax.Array:
        *rest, total = coefficients
        return functools.reduce(lambda total, c: total * square + c, reversed(rest), jnp.full_like(x, total))

    root = lax.rsqrt(polynomial(_Q))
    return 0.5 + x * polynomial(_P) * (root * root)


def geglu(
    x: Float[Array, "m k"], kernel: Float[Array, "k twice_n"], bias: Float[Array, " twice_n"]
) -> Float[Array, "m n"]:
    """Compute value * gelu(gate) with [value, gate] = x @ kernel + bias, accumulated in float32.

    Args:
        x: bfloat16 or float16; m a multiple of `BLOCK`, k of `DEPTH`.
        kernel: columns of the value, then those of the gate; n a multiple of `COLUMNS`.
        bias: likewise.
    """
    (m, k), n, dtype = x.shape, kernel.shape[1] // 2, x.dtype
    # Columns of value and gate in turn, 128 of each, so that one product takes both.
    kernel, bias = (
        array.reshape(*array.shape[:-1], 2, -1, COLUMNS).swapaxes(-3, -2).reshape(array.shape)
        for array in (kernel, bias)
    )

    def swizzled(width: int) -> tuple[Any, ...]:
        swizzle = plgpu.find_swizzle(width * dtype.itemsize * 8)
        return plgpu.TilingTransform((8, swizzle // dtype.itemsize)), plgpu.SwizzleTransform(swizzle)

    block = functools.partial(plgpu.BlockSpec, transforms=swizzled(DEPTH), memory_space=plgpu.SMEM)
    in_specs = [block((BLOCK, DEPTH), lambda i: (0, i)), block((DEPTH, 2 * COLUMNS), lambda i: (i, 0))]

    def body(x_gmem: Any, kernel_gmem: Any, bias_gmem: Any, out_gmem: Any, out_smem: Any) -> None:
        def pipeline(step: Any, context: Any) -> Any:
            return plgpu.emit_pipeline_warp_specialized(
                step,
                grid=(k // DEPTH,),
                memory_registers=24,
                in_specs=in_specs,
                wg_axis="group",
                num_compute_wgs=_GROUPS,
                max_concurrent_steps=STAGES,
                compute_context=context,
            )

        shapes = pipeline(lambda *_, **__: None, lambda *_: None).get_allocations(x_gmem, kernel_gmem)

        @functools.partial(pl.run_scoped, allocations=shapes, collective_axes="group")
        def _(allocations: Any) -> None:
            group = lax.axis_index("group")
            own = pl.ds(group * _ROWS, _ROWS)

            def step(_: Any, x_smem: Any, kernel_smem: Any, total: Any) -> Any:
                plgpu.wgmma(total, x_smem.at[own], kernel_smem)
                plgpu.wgmma_wait(0)
                return total

            @plgpu.nd_loop((m // BLOCK * (n // COLUMNS),), collective_axes="processor")
            def _(loop: Any) -> None:
                # Neighbours in time share their rows, so that these come from the cache.
                row, column = plgpu.planar_snake(loop.index[0], (m // BLOCK, n // COLUMNS), 1, 1)
                row_slice = pl.ds(row * BLOCK, BLOCK)

                def with_bias(total: jax.Array, start: int) -> jax.Array:
                    bias = _load_columns(bias_gmem.at[pl.ds(column * 2 * COLUMNS + start, _PART)])
                    broadcast = lax.broadcast_in_dim(bias.astype(jnp.float32), (_ROWS, _PART), (1,))
                    return total[:, start : start + _PART] + broadcast

                def write(total: jax.Array) -> None:
                    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                    for part in range(COLUMNS // _PART):
                        value = with_bias(total, part * _PART)
                        gate = with_bias(total, COLUMNS + part * _PART)
                        plgpu.wait_smem_to_gmem(_BUFFERS - 1, wait_read_only=True)
                        buffer = out_smem.at[group, part % _BUFFERS]
                        buffer[...] = (value * gate * normal_cdf(gate)).astype(dtype)
                        plgpu.commit_smem()
                        target = out_gmem.at[row_slice, pl.ds(column * COLUMNS + part * _PART, _PART)]
                        plgpu.copy_smem_to_gmem(buffer, target.at[own])

                def compute(run: Any) -> None:
                    @functools.partial(pl.run_scoped, total=plgpu.ACC((_ROWS, 2 * COLUMNS), jnp.float32))
                    def _(total: Any) -> None:
                        run(total)
                        write(total[...])

                columns = kernel_gmem.at[:, pl.ds(column * 2 * COLUMNS, 2 * COLUMNS)]
                pipeline(step, compute)(x_gmem.at[row_slice, :], columns, allocations=allocations)

        plgpu.wait_smem_to_gmem(0, wait_read_only=True)

    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((m, n), dtype),
        scratch_types=[plgpu.SMEM((_GROUPS, _BUFFERS, _ROWS, _PART), dtype, transforms=swizzled(_PART))],
        grid=(_PROCESSORS,),
        grid_names=("processor",),
        num_threads=_GROUPS + 1,
        thread_name="group",
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane),
    )(x, kernel, bias)


def _load_columns(ref: Any) -> jax.Array:
    """Load a vector such that it can be added to the rows of a product. jax before 0.11 wants an index."""
    index = ((),) if jax.__version_info__ < (0, 11) else ()
    return plgpu.load(ref, *index, layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)
