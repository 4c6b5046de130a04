"""Gradients of every parameter of the UNet: ours in bfloat16 and float32, PyTorch's in both, compared pair by pair."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from card.measuring import jax_peak, relative_difference, sample, torch_peak
from card.our_side import Ours
from card.results import Results, Row
from card.sizes import Size, size_of
from mimicmotion_jax.checkpoint import flat_params

_KEPT = 2**12  # values per parameter
_FRAMES = 8  # at full size; PyTorch in float32 has no room for 16
_SILENT = 1e-6  # parameters whose gradients are below this part of the whole have none
PAIRS = (
    ("ours-bfloat16", "ours-float32"),
    ("ours-bfloat16", "torch-bfloat16"),
    ("ours-bfloat16", "torch-float32"),
    ("ours-float32", "torch-float32"),
    ("torch-bfloat16", "torch-float32"),
)


def our_float32(results: Results, part: str, size: str) -> None:
    """Compute our gradients in float32."""
    results.row(part, "gradients", functools.partial(_ours, results, part, reduced(size), "float32"))


def our_bfloat16(results: Results, part: str, size: str) -> None:
    """Compute our gradients in bfloat16."""
    results.row(part, "gradients", functools.partial(_ours, results, part, reduced(size), "bfloat16"))


def torch_float32(results: Results, part: str, size: str) -> None:
    """Compute PyTorch's gradients in float32."""
    results.row(part, "gradients", functools.partial(_torch, results, part, reduced(size), "float32"))


def torch_bfloat16(results: Results, part: str, size: str) -> None:
    """Compute PyTorch's gradients in bfloat16."""
    results.row(part, "gradients", functools.partial(_torch, results, part, reduced(size), "bfloat16"))


def comparison(results: Results, part: str, size: str) -> None:
    """Compare the gradients that the parts before have kept."""
    for ours, theirs in PAIRS:
        paths = [results.array_path(name, "gradients") for name in (ours, theirs)]
        if all(path.exists() for path in paths):
            results.row(part, f"{ours} against {theirs}", functools.partial(_compare, *paths))


def reduced(name: str) -> Size:
    """Size of the video whose gradients are compared: fewer frames than a window at full size."""
    return size_of(name, frames=_FRAMES) if name == "full" else size_of(name)


def _ours(results: Results, part: str, size: Size, dtype: str) -> Row:
    import torch

    from card.torch_side import official_loop
    from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    ours = Ours(size, official_loop(size, "cpu", torch.float32).in_jax(dtype=dtype))
    return keep_gradients(results, part, ours) | jax_peak()


def keep_gradients(results: Results, part: str, ours: Ours) -> Row:
    """Compute our gradients and keep some values of each."""
    with ours.precision:
        step, params = ours.gradients()
        return _keep(results, part, flat_params(jax.device_get(step(params))))


def _torch(results: Results, part: str, size: Size, dtype: str) -> Row:
    import torch
    from flax import nnx

    from card.torch_side import Theirs, from_torch

    # A card would multiply float32 in TF32 inside convolutions.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    theirs = Theirs(size, getattr(torch, dtype))
    theirs.gradients()()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in theirs.official.unet.named_parameters()
    }
    return _keep(results, part, flat_params(nnx.state(from_torch("unet", size.model, gradients)))) | torch_peak()


def _keep(results: Results, part: str, gradients: Mapping[str, np.ndarray]) -> Row:
    """Keep some values of each gradient, scaled so that their norm estimates the whole one's."""
    path = results.array_path(part, "gradients")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {}
    for name, values in gradients.items():
        some = sample(np.asarray(values), _KEPT)
        kept[name] = some * np.sqrt(np.size(values) / some.size, dtype=np.float32)
    np.savez(path, **kept)
    norm = np.sqrt(sum(float(np.sum(np.square(values, dtype=np.float64))) for values in kept.values()))
    return {"parameters": len(kept), "norm": float(f"{norm:.5g}")}


def _compare(ours: Path, theirs: Path) -> Row:
    with np.load(ours) as a, np.load(theirs) as b:
        whole = relative_difference(*(np.concatenate([kept[name] for name in b.files]) for kept in (a, b)))
        norms = {name: float(np.linalg.norm(b[name])) for name in b.files}
        total = np.sqrt(sum(norm**2 for norm in norms.values()))
        heard = [name for name, norm in norms.items() if norm > _SILENT * total]
        each = {name: relative_difference(a[name], b[name]) for name in heard}
    worst = dict(sorted(each.items(), key=lambda pair: -pair[1])[:5])
    median = float(f"{np.median(list(each.values())):.3g}")
    return {"difference": whole, "median": median, "worst": worst, "compared": len(each)}
