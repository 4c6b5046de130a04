"""Print pip constraints for the lowest jax that pyproject.toml allows, or none: jax_constraint.py lowest|newest."""

import re
import sys
import tomllib
from pathlib import Path

if sys.argv[1] == "lowest":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (lowest,) = (match[1] for line in project["dependencies"] if (match := re.match(r"jax>=([\d.]+)", line)))
    print(f"jax=={lowest}.*")
