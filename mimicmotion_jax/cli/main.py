"""The command `mimicmotion`: dispatches to a subcommand and imports only that subcommand's module."""

import importlib
import sys

from mimicmotion_jax import __version__
from mimicmotion_jax.runtime.errors import run_script

COMMANDS = {
    "sample": ("sample", "generate videos from a reference image and a driving motion"),
    "check": ("check", "show what the model will be given, before minutes are spent"),
    "studio": ("studio", "generate in the browser: preview, queue and gallery"),
    "train": ("train", "train the UNet and the PoseNet"),
    "train-vae": ("train_vae", "train a VAE from scratch"),
    "prepare": ("prepare", "prepare training data from videos, or render it"),
    "convert": ("convert", "convert official PyTorch checkpoints, and convert back"),
    "evaluate": ("evaluate", "generate a test set and score it"),
    "study": ("study", "ask people which of two methods' videos is better, and report preferences"),
    "verify": ("verify", "look whether a file was made by this software"),
}

_COMMAND_LIST = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
USAGE = f"""\
usage: mimicmotion COMMAND ...
       mimicmotion --version

MimicMotion in JAX: one reference image and a driving motion in, a video of that person moving that way out.

commands:
{_COMMAND_LIST}

`mimicmotion COMMAND --help` explains a command and shows examples. This one runs without any download:
  mimicmotion sample --output demo.mp4

In a checkout scripts at the root do the same: python sample.py, train.py, train_vae.py, prepare_data.py,
convert_weights.py, evaluate.py."""


def main() -> None:
    """Run the subcommand that `sys.argv` names."""
    command, *argv = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return
    if command in ("-V", "--version"):
        print(f"mimicmotion_jax {__version__}")
        return
    if command not in COMMANDS:
        print(f"error: unknown command '{command}'; choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    sys.argv[0] = f"mimicmotion {command}"
    module = importlib.import_module(f"mimicmotion_jax.cli.{COMMANDS[command][0]}")
    run_script(lambda: module.main(argv))()
