#!/usr/bin/env python3
"""Train a VAE from scratch: the same as `mimicmotion train-vae`."""

from mimicmotion_jax.cli.train_vae import main
from mimicmotion_jax.runtime.errors import run_script

if __name__ == "__main__":
    run_script(main)()
