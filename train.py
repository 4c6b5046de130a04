#!/usr/bin/env python3
"""Train UNet and PoseNet: the same as `mimicmotion train`."""

from mimicmotion_jax.cli.train import main
from mimicmotion_jax.runtime.errors import run_script

if __name__ == "__main__":
    run_script(main)()
