#!/usr/bin/env python3
"""Prepare training data: the same as `mimicmotion prepare`."""

from mimicmotion_jax.cli.prepare import main
from mimicmotion_jax.runtime.errors import run_script

if __name__ == "__main__":
    run_script(main)()
