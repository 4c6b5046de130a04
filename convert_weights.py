#!/usr/bin/env python3
"""Convert checkpoints from PyTorch and back: the same as `mimicmotion convert`."""

from mimicmotion_jax.cli.convert import main
from mimicmotion_jax.runtime.errors import run_script

if __name__ == "__main__":
    run_script(main)()
