"""The persistent compilation cache: a program is compiled once per machine, not once per run."""

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keep compiled programs under the user's cache folder, unless jax was told where to keep them (or not to).

    `JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns it off.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "mimicmotion_jax" / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Else what compiles in less than a second is compiled anew each time: eight programs of a small model's eleven.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
