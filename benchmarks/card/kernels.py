"""Each candidate against the present way, per block and in the whole step of the UNet; and what the device can do."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from card.candidates import COMPILER, GPU, LAYERS, TPU, Candidate, combine
from card.inputs import accelerator, fast_dtype, pooled, random_pipeline
from card.measuring import jax_peak, measure_kernel, relative_difference, sample
from card.our_side import Ours
from card.results import Results, Row, finished
from card.sizes import Size, positions, size_of
from mimicmotion_jax import sharding
from mimicmotion_jax.models.blocks import SpatioTemporalResBlock
from mimicmotion_jax.models.convolutions import Upsample
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.models.transformer import SpatioTemporalTransformer
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache

PRESENT = "present"
_GAIN = 1.02
_THREADS = max(1, min(8, (os.cpu_count() or 1) // 2))  # programs compiled at a time
Build = Callable[[Init], nnx.Module]
Block = tuple[str, Build, list[tuple[int, ...]]]
"""Kind of a block, its constructor, and the shapes of its inputs."""


class Transformer(nnx.Module):
    """A transformer of the UNet that computes its constants as well."""

    def __init__(self, init: Init, channels: int, heads: int, context: int):
        self.transformer = SpatioTemporalTransformer(init, channels, heads, 1, context)

    def __call__(self, x: jax.Array, context: jax.Array, execution: Execution) -> jax.Array:
        return self.transformer(x, self.transformer.conditions(context, x.shape[1]), execution)


def blocks(size: Size) -> dict[str, Block]:
    """Blocks of the UNet for both branches, finest first, of the VAE's decoder, and the UNet's upsampling."""
    found: dict[str, Block] = {}
    embedding = 4 * size.channels[0]
    for level in range(max(1, len(size.channels) - 1)):
        channels, height, width = size.block(level)
        x = (2, size.frames, height, width, channels)
        found[f"unet transformer {channels}"] = (
            "unet transformer",
            functools.partial(Transformer, channels=channels, heads=size.heads[level], context=size.context),
            [x, (2, size.context)],
        )
        found[f"unet resnet {channels}"] = (
            "unet resnet",
            functools.partial(_resnet, channels=channels, embedding=embedding),
            [x, (2, embedding)],
        )
    for level in (2, 0):
        channels, height, width = size.vae_block(level)
        x = (1, size.decode_chunk, height, width, channels)
        found[f"vae resnet {channels} at {height}x{width}"] = ("vae resnet", _vae(channels), [x])
    for level in range(1, len(size.channels)):
        channels, height, width = size.block(level)
        found[f"upsample {channels} from {height}x{width}"] = (
            "upsample",
            functools.partial(Upsample, channels=channels),
            [(2, size.frames, height, width, channels)],
        )
    return found


def measure_blocks(results: Results, part: str, size: str) -> None:
    """Measure every block as it is and with each candidate that concerns it."""
    enable_compilation_cache()
    own = TPU if jax.default_backend() == "tpu" else GPU | (COMPILER if jax.default_backend() == "gpu" else {})
    candidates = {PRESENT: Candidate(()), **own, **LAYERS}
    for name, (kind, build, shapes) in blocks(size_of(size)).items():
        ways = {candidate: way for candidate, way in candidates.items() if candidate == PRESENT or kind in way.blocks}
        if not _begin(results, part, name, ways):
            continue
        block = abstract_block(build, shapes)
        arrays = jax.tree.map(lambda leaf: jnp.asarray(pooled(str(leaf.shape), leaf.shape), leaf.dtype), block[1:])
        # As if drawn with variance 1 / fan-in, so that nothing overflows.
        state = jax.tree.map(lambda x: x * float(np.prod(x.shape[:-1]) ** -0.5 if x.ndim > 1 else 0.1), arrays[0])
        _measure_ways(results, part, name, block[0], (state, *arrays[1]), ways)


def _begin(results: Results, part: str, name: str, ways: Mapping[str, Candidate]) -> bool:
    """Return False if all rows are there; otherwise the present way, which they are compared with, is measured anew."""
    rows = results.parts.get(part, {})
    if all(finished(rows.get(f"{name}: {candidate}")) for candidate in ways):
        return False
    rows.pop(f"{name}: {PRESENT}", None)
    return True


def measure_step(results: Results, part: str, size: str) -> None:
    """Measure the step of the UNet as it is, with each candidate that gained in a block, and with the best of them.

    Where no blocks were measured, every candidate is.
    """
    enable_compilation_cache()
    on_tpu = jax.default_backend() == "tpu"
    every = {**(TPU if on_tpu else GPU | COMPILER), **LAYERS}
    blocks = Results(results.path.with_name("blocks.json")).parts.get("blocks")
    candidates = {PRESENT: Candidate(()), **(every if blocks is None else winners(blocks, every))}
    if not _begin(results, part, "step", candidates):
        return
    ours = Ours(size_of(size), random_pipeline(size_of(size), fast_dtype()))
    step, arguments = ours.unet_step()
    _measure_ways(results, part, "step", step.__wrapped__, arguments, candidates)


def winners(blocks: Mapping[str, Row], every: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """Candidates that made a block faster by 2 % or more; where there are several, the best of each layer together too.

    Args:
        blocks: rows of experiment `blocks`.
        every: candidates by name.
    """
    gains: dict[str, float] = {}
    for name, row in blocks.items():
        candidate = name.partition(": ")[2]
        gains[candidate] = max(gains.get(candidate, 0), row.get("ratio", 0))
    found = sorted((name for name in every if gains.get(name, 0) >= _GAIN), key=lambda name: -gains[name])
    best = list({every[name].layer: every[name] for name in reversed(found)}.values())
    together = {"the best together": combine(best)} if len(best) > 1 else {}
    return together | {name: every[name] for name in found}


def _measure_ways(
    results: Results,
    part: str,
    name: str,
    function: Callable,
    arguments: tuple[Any, ...],
    ways: Mapping[str, Candidate],
) -> None:
    """Compile the function with each candidate, several at a time, and then measure one after the other."""
    rows, kept = results.parts.get(part, {}), {}
    wanted = {
        candidate: way
        for candidate, way in ways.items()
        if (candidate == PRESENT or results.wants(candidate)) and not finished(rows.get(f"{name}: {candidate}"))
    }
    plain = lower_with(function, arguments, Candidate(()))  # compiler's options need no program of their own
    with ThreadPoolExecutor(_THREADS) as pool:
        compiled: dict[str, Callable[[], Any]] = {}
        for candidate, way in wanted.items():
            try:
                unpatched = way.patch is contextlib.nullcontext
                lowered = plain if unpatched else lower_with(function, arguments, way)
                compiled[candidate] = pool.submit(lowered.compile, dict(way.compiler) or None).result
            except Exception as error:  # what cannot be traced becomes a row of its own
                compiled[candidate] = functools.partial(_raise, error)
    for candidate in wanted:
        run = functools.partial(_row, compiled[candidate], arguments, candidate, kept, results, part, name)
        results.row(part, f"{name}: {candidate}", run)


def _raise(error: Exception) -> None:
    raise error


def abstract_block(build: Build, shapes: list[tuple[int, ...]]) -> tuple[Callable[..., jax.Array], Any, Any]:
    """Function (parameters, *inputs) of a block, and the shapes of its parameters and inputs."""
    dtype = jnp.dtype(fast_dtype())
    graph, params = nnx.split(nnx.eval_shape(lambda: build(Init(nnx.Rngs(0), dtype))))

    def run(params: nnx.State, *inputs: jax.Array, execution: Execution | None = None) -> jax.Array:
        laid = execution or sharding.sampling_execution(sharding.window_mesh(sharding.sampling_mesh(1), 1, 2, 1, 1))
        if len(inputs) == 1:  # the VAE's, and upsampling
            laid = Execution(platform=laid.platform)
        return nnx.merge(graph, params)(*inputs, execution=laid)

    return run, params, [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def lower_with(function: Callable, arguments: tuple[Any, ...], way: Candidate, **static: Any) -> jax.stages.Lowered:
    """Trace a function with a candidate in place; the arguments may be shapes."""
    # A new function, because jax keeps the program of one that it has traced before.
    with way.patch():
        return jax.jit(lambda *args: function(*args, **static)).lower(*arguments)


def _row(
    compiled: Callable[[], Any],
    arguments: tuple[Any, ...],
    candidate: str,
    kept: dict[str, np.ndarray],
    results: Results,
    part: str,
    name: str,
) -> Row:
    program = compiled()
    out = sample(jax.device_get(program(*arguments)))
    found: Row = {"ms": measure_kernel(lambda: program(*arguments), jax.block_until_ready, calls=4)}
    if candidate == PRESENT:
        kept[name] = out
    else:
        found["ratio"] = round(results.parts[part][f"{name}: {PRESENT}"]["ms"] / found["ms"], 3)
        if name in kept:
            found["difference"] = relative_difference(out, kept[name])
    memory = program.memory_analysis()
    return found | ({"temporary_GB": round(memory.temp_size_in_bytes / 1e9, 3)} if memory else {}) | jax_peak()


def _resnet(init: Init, channels: int, embedding: int) -> nnx.Module:
    return SpatioTemporalResBlock(init, channels, channels, embedding, 1e-6)


def _vae(channels: int) -> Build:
    return lambda init: SpatioTemporalResBlock(init, channels, channels, None, 1e-6, 1e-5)


def measure_hardware(results: Results, part: str, size: str) -> None:
    """Measure what the device can do: a large product, a copy, the UNet's convolution and attention alone."""
    sizes = size_of(size)
    side, dtype = (8192 if accelerator() else 256), jnp.dtype(fast_dtype())
    channels, height, width = sizes.block(0)
    tokens, heads = positions(sizes.block(0)), sizes.heads[0]
    image = (2 * sizes.frames, height, width, channels)

    def array(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(pooled(str(shape), shape), dtype)

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    cudnn = jax.default_backend() == "gpu" and dtype.itemsize == 2
    attend = functools.partial(jax.nn.dot_product_attention, implementation="cudnn" if cudnn else None)
    qkv = (2 * sizes.frames, tokens, heads, channels // heads)
    work: Mapping[str, tuple[Callable, tuple[tuple[int, ...], ...], float]] = {
        "product": (jnp.matmul, ((side, side),) * 2, 2 * side**3),
        "convolution 3x3": (convolve, (image, (3, 3, channels, channels)), 18 * np.prod(image) * channels),
        "attention": (attend, (qkv,) * 3, 4 * np.prod(qkv) * tokens),
        "copy": (lambda x: x + 1, ((2 * sizes.frames, *sizes.latents[1:3], 10 * channels),), 0),
    }

    def row(function: Callable, shapes: tuple[tuple[int, ...], ...], flops: float) -> Row:
        arguments, jitted = [array(shape) for shape in shapes], jax.jit(function)
        ms = measure_kernel(lambda: jitted(*arguments), jax.block_until_ready)
        moved = 2 * arguments[0].nbytes / ms / 1e6
        return {"ms": ms} | ({"TFLOP/s": float(f"{flops / ms / 1e9:.4g}")} if flops else {"GB/s": round(moved, 1)})

    for name, (function, shapes, flops) in work.items():
        if name != "attention" or accelerator() or size == "tiny":  # scores of the full size have no room elsewhere
            results.row(part, name, functools.partial(row, function, shapes, flops))
