"""Ours against PyTorch with the same weights and inputs, each side in a process of its own."""

import functools
import os
import tempfile
from unittest import mock

from card.inputs import fast_dtype
from card.measuring import compare, jax_peak, keep, measure, torch_peak
from card.our_side import Ours
from card.results import Results, Row
from card.sizes import Size, size_of
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache

INFERENCE = ("unet", "decode", "generation")
TRAINING = ("training",)


def torch_inference(results: Results, part: str, size: str) -> None:
    """Measure PyTorch eager as the release runs it."""
    _torch(results, part, size_of(size), INFERENCE)


def torch_compiled(results: Results, part: str, size: str) -> None:
    """Measure PyTorch under torch.compile."""
    # Not PyTorch's usual cache, in which a process that was ended at its time limit leaves broken files.
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
        _torch(results, part, size_of(size), INFERENCE, compiled=True)


def torch_training(results: Results, part: str, size: str) -> None:
    """Measure PyTorch's forward and backward pass in bfloat16: float16 underflows without loss scaling."""
    _torch(results, part, size_of(size), TRAINING)


def our_inference(results: Results, part: str, size: str) -> None:
    """Measure ours, and compare its results with PyTorch's."""
    _ours(results, part, size_of(size), INFERENCE)


def our_training(results: Results, part: str, size: str) -> None:
    """Measure our forward and backward pass, and compare a gradient with PyTorch's."""
    _ours(results, part, size_of(size), TRAINING)


def _torch(results: Results, part: str, size: Size, names: tuple[str, ...], *, compiled: bool = False) -> None:
    import torch

    from card.torch_side import Theirs

    dtype = torch.bfloat16 if names == TRAINING and torch.cuda.is_available() else None
    theirs = Theirs(size, dtype, compiled)

    def row(name: str) -> Row:
        found, out = measure(getattr(theirs, name)(), size.rounds)
        keep(results.array_path("torch", name), out=out)
        return found | torch_peak() | {"dtype": str(theirs.official.dtype).removeprefix("torch.")}

    for name in names:
        results.row(part, name, functools.partial(row, name))


def _ours(results: Results, part: str, size: Size, names: tuple[str, ...]) -> None:
    import torch

    from card.torch_side import official_loop

    enable_compilation_cache()
    ours = Ours(size, official_loop(size, "cpu", torch.float32).in_jax(dtype=fast_dtype()))

    def row(name: str) -> Row:
        with ours.precision:
            found, out = measure(getattr(ours, name)(), size.rounds)
        theirs = results.parts.get("torch", {}).get(name, {}).get("median_s")
        ratio = {"ratio": round(theirs / found["median_s"], 3)} if theirs else {}
        return found | ratio | compare(results.array_path("torch", name), out=out) | jax_peak()

    for name in names:
        results.row(part, name, functools.partial(row, name))
