"""The model of the tests that are about everything around the networks: half the layers of `ModelConfig.tiny`."""

import dataclasses

from mimicmotion_jax.models.config import ModelConfig

_TINY = ModelConfig.tiny()

TINY = dataclasses.replace(
    _TINY,
    unet=dataclasses.replace(
        _TINY.unet,
        # Attention in the middle only: compilation is most of the tests' time.
        down_block_types=("DownBlockSpatioTemporal",) * 2,
        up_block_types=("UpBlockSpatioTemporal",) * 2,
    ),
)
"""Two resolutions, windows of 8 frames; sides are multiples of 16 pixels."""

SMALLEST = dataclasses.replace(
    TINY,
    unet=dataclasses.replace(
        _TINY.unet,
        down_block_types=("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",),
        block_out_channels=(32,),
        num_attention_heads=(2,),
    ),
)
"""One resolution, for programs that are compiled and not run."""
