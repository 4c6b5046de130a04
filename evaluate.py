#!/usr/bin/env python3
"""Evaluate under a named protocol: the same as `mimicmotion evaluate`."""

from mimicmotion_jax.cli.evaluate import main
from mimicmotion_jax.runtime.errors import run_script

if __name__ == "__main__":
    run_script(main)()
