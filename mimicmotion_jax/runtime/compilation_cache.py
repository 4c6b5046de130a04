"""Persistent compilation cache: a program is compiled once per machine, not once per run."""

import os
from pathlib import Path

import jax


def user_cache() -> Path:
    """Folder of what this software keeps for the user between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mimicmotion_jax"


def enable_compilation_cache() -> None:
    """Keep compiled programs under the user's cache folder.

    `JAX_COMPILATION_CACHE_DIR` sets another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue] (defined at run time)
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # jax's default keeps only what compiles for a second or longer: three of a small model's eleven programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
