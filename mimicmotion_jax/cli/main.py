"""The command `mimicmotion`: hands over to one subcommand, whose module is imported only then."""

import importlib
import sys

from mimicmotion_jax.runtime.errors import run_script

COMMANDS = {
    "sample": ("sample", "generate videos from a reference image and a driving motion"),
    "train": ("train", "train UNet and PoseNet"),
    "train-vae": ("train_vae", "train a VAE from scratch"),
    "prepare": ("prepare", "prepare training data"),
    "convert": ("convert", "convert checkpoints from PyTorch and back"),
    "evaluate": ("evaluate", "evaluate under a named protocol"),
}


def _usage() -> str:
    rows = "\n".join(f"  {name:10} {meaning}" for name, (_, meaning) in COMMANDS.items())
    return (
        "usage: mimicmotion COMMAND ...\n\n"
        f"commands:\n{rows}\n\n"
        "`mimicmotion COMMAND --help` explains a command. Example, which needs no weights:\n"
        "  mimicmotion sample --output demo.mp4"
    )


def main() -> None:
    """Run the subcommand that `sys.argv` names."""
    command, *argv = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help", "help"):
        print(_usage())
        return
    if command not in COMMANDS:
        print(f"error: there is no command '{command}'; it must be one of {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    sys.argv[0] = f"mimicmotion {command}"
    module = importlib.import_module(f"mimicmotion_jax.cli.{COMMANDS[command][0]}")
    run_script(lambda: module.main(argv))()
