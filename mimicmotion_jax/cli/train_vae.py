"""Train the VAE of a model that is trained from scratch, on a folder written by prepare_data.py."""

import argparse
import logging
import signal
from pathlib import Path

from mimicmotion_jax.cli.common import log_to_stderr, script_parser
from mimicmotion_jax.config import load_config
from mimicmotion_jax.runtime.compilation_cache import enable_compilation_cache
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.autoencoder.run import VAERun

EXAMPLES = """examples:
  python train_vae.py --config configs/vae_synthetic.yaml data.dataset=data/world
  python train.py --config configs/train_synthetic.yaml      with these encoders (its head tells how)

run the same command again to go on where a run stopped.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__, EXAMPLES, VAETrainConfig, meanings="configs/vae_synthetic.yaml")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML, such as configs/vae_*.yaml")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train to the end (0), or to the signal that stopped it (128 + its number)."""
    args = parse_args(argv)
    log_to_stderr(libraries=logging.CRITICAL)  # what goes wrong is told in our words
    config = load_config(VAETrainConfig, args.config, args.options)
    enable_compilation_cache()
    run = VAERun(config)
    stopped_by = run.train()
    return 0 if stopped_by is None else 128 + signal.Signals(stopped_by)
