"""Seeds of up to 64 bits, as ComfyUI draws them, for generators that take 32."""

from typing import Annotated

import numpy as np
from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""Type of a `seed` in a configuration."""


def fold_seed(seed: int) -> int:
    """Fold a seed into 32 bits: below 2^32 it stays as it is, above that NumPy's `SeedSequence` mixes its bits."""
    return seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0])
