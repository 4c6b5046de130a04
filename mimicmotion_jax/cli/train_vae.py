"""Train the VAE of a model that is trained from scratch, on a folder written by `mimicmotion prepare`."""

import argparse
import logging
import signal

from mimicmotion_jax.cli.common import log_to_stderr, path_or_url, script_parser
from mimicmotion_jax.config import load_config
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.tasks.autoencoder import Autoencoder
from mimicmotion_jax.training.trainer import train

EXAMPLES = """examples:
  mimicmotion train-vae --config configs/vae_synthetic.yaml data.dataset=data/world
  mimicmotion train --config configs/train_synthetic.yaml      a model with these encoders (see the file's first lines)

A run that stopped is continued by the same command.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__, EXAMPLES, VAETrainConfig, meanings="configs/vae_synthetic.yaml")
    parser.add_argument(
        "--config", type=path_or_url, required=True, metavar="FILE", help="YAML, such as configs/vae_*.yaml"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train to the end; returns 0, or 128 plus the number of the signal that stopped the run."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.CRITICAL)  # errors of libraries are reported in our own messages
    config = load_config(VAETrainConfig, args.config, args.options)
    enable_compilation_cache()
    stopped_by = train(Autoencoder(config))
    return 0 if stopped_by is None else 128 + signal.Signals(stopped_by)
