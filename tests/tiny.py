"""Models of the tests that are about everything around the networks: compilation is most of these tests' time."""

import dataclasses

from mimicmotion_jax.models.config import ModelConfig

_TINY = ModelConfig.tiny()

TINY = dataclasses.replace(
    _TINY,
    unet=dataclasses.replace(
        _TINY.unet,
        # Attention in the middle only.
        down_block_types=("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",),
        block_out_channels=(32,),
        num_attention_heads=(2,),
    ),
)
"""One resolution, windows of 8 frames; sides are multiples of 8 pixels."""

SIDE = 64
FEW = {"num_inference_steps": 2, "decode_chunk_size": 2, "decode_overlap": 1}
"""Options whose compiled programs tests share, for `SIDE` x `SIDE` pixels and one window (8 frames, the reference's
included): up to nine steps are called one by one, and overlapping chunks have one length."""

TWO_RESOLUTIONS = dataclasses.replace(
    _TINY,
    unet=dataclasses.replace(
        _TINY.unet,
        down_block_types=("DownBlockSpatioTemporal",) * 2,
        up_block_types=("UpBlockSpatioTemporal",) * 2,
    ),
)
"""The same with two; sides are multiples of 16."""
