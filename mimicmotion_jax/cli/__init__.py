"""The command line: one module per subcommand of `mimicmotion`."""

import os

# A command has a GPU to itself, so jax may take more of its memory than its usual 75 %: on a card of 8 GB, 7.7 GB
# instead of 6.4. The rest is for CUDA and its libraries. jax reads this when it first looks for devices.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
