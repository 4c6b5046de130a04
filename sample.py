#!/usr/bin/env python3
"""Generate videos from a reference image and a driving motion: the same as `mimicmotion sample`."""

from mimicmotion_jax.cli.sample import main
from mimicmotion_jax.runtime.errors import run_script

if __name__ == "__main__":
    run_script(main)()
