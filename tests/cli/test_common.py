"""What the scripts say on stderr."""

import os
import subprocess
import sys

import pytest

QUIET = """
import logging
from mimicmotion_jax.cli.common import log_to_stderr
log_to_stderr(libraries=logging.CRITICAL)
import jax
jax.devices()
logging.getLogger("orbax").error("a library's own words")
"""


@pytest.mark.parametrize(("plugins", "warned"), [("", False), ("broken", True)])
def test_jax_may_complain_about_accelerators(plugins, warned):
    """Of a broken plugin and of a GPU without CUDA it complains in the same place."""
    environment = os.environ | {"PJRT_NAMES_AND_LIBRARY_PATHS": plugins}
    run = subprocess.run([sys.executable, "-c", QUIET], env=environment, capture_output=True, text=True, check=True)
    assert ("invalid value broken in env var PJRT_NAMES_AND_LIBRARY_PATHS" in run.stderr) == warned
    assert "a library's own words" not in run.stderr
