"""Long windows and many windows: seconds and peak memory of generation, each in a process of its own."""

import dataclasses
from typing import Any

import numpy as np

from card.inputs import Inputs, fast_dtype, random_pipeline
from card.measuring import jax_peak, measure
from card.results import Results, Row, Skipped
from card.sizes import Size, size_of
from mimicmotion_jax import MimicMotionPipeline
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache

_STEPS = 5  # of several windows, whose steps all take the same time


def long_window(results: Results, part: str, size: str) -> None:
    """Generate one window of 72 frames, decoding included; the memory is chosen by the program."""
    _long(results, part, size, "auto")


def long_window_fast(results: Results, part: str, size: str) -> None:
    """Generate one window of 72 frames with guidance's branches together."""
    _long(results, part, size, "fast")


def long_window_low(results: Results, part: str, size: str) -> None:
    """Generate one window of 72 frames with guidance's branches in turn."""
    _long(results, part, size, "low")


def one_window_low(results: Results, part: str, size: str) -> None:
    """Generate one window of the usual length with guidance's branches in turn."""
    results.row(part, "one window", lambda: _generate(size_of(size), 1, {"memory": "low"}))


def group_1(results: Results, part: str, size: str) -> None:
    """Denoise 2 and 8 windows one by one."""
    _several(results, part, size, 1)


def group_2(results: Results, part: str, size: str) -> None:
    """Denoise 2 and 8 windows in pairs."""
    _several(results, part, size, 2)


def group_4(results: Results, part: str, size: str) -> None:
    """Denoise 8 windows in fours."""
    _several(results, part, size, 4)


def _long(results: Results, part: str, size: str, memory: str) -> None:
    changed = size_of(size, frames=72) if size == "full" else size_of(size, frames=9)
    results.row(part, f"{changed.frames} frames", lambda: _generate(changed, 1, {"memory": memory}))


def _several(results: Results, part: str, size: str, group: int) -> None:
    sizes = size_of(size)
    changed = dataclasses.replace(sizes, steps=min(sizes.steps, _STEPS))
    for windows in (2, 8):
        if group <= windows:
            options = {"group_size": group, "output_type": "latent"}
            results.row(part, f"{windows} windows", lambda n=windows, o=options: _generate(changed, n, o))


def _generate(size: Size, windows: int, options: dict[str, Any]) -> Row:
    """Generate a video of full windows, twice."""
    if options.get("memory") == "auto":
        options.pop("memory")  # the default, wherever there is a choice
    elif "memory" in options and "memory" not in {field.name for field in dataclasses.fields(SamplingConfig)}:
        raise Skipped("there is no option memory")
    enable_compilation_cache()
    pipeline = _pipeline(size)
    overlap = int(size.options["window_overlap"])
    frames = size.frames + (windows - 1) * (size.frames - 1 - overlap)
    poses = np.resize(Inputs(size).poses, (frames, size.height, size.width, 3))
    given = {**size.options, "motion_kind": "skeletons", "keep_reference_frame": True, "progress": False, **options}
    found, _ = measure(lambda: pipeline(Inputs(size).image, poses, **given).frames, 1)
    per_window = found["median_s"] / size.steps / windows
    shape = {"frames": frames, "windows": windows, "steps": size.steps}
    return shape | found | {"s_per_step_and_window": float(f"{per_window:.4g}")} | jax_peak()


def _pipeline(size: Size) -> MimicMotionPipeline:
    return random_pipeline(size, fast_dtype())
