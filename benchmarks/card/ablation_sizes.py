"""Sizes of the ablation: for a card, minutes on a CPU, and a test. The VAE is that of a checkpoint."""

import dataclasses

from card.small_sizes import SMALL_SIZES

SEEDS = (0, 1, 2)

_SHIPPED = dataclasses.replace(SMALL_SIZES["middle"], channels=(64, 128), heads=(2, 4), test=(16, 42))

ABLATION_SIZES = {
    # Six million parameters with the VAE, as in mimicmotion_jax/weights/small-student.
    "full": dataclasses.replace(_SHIPPED, clips=16, dtype="bfloat16", workers=None, limit=3000, reserve=10.0),
    "middle": dataclasses.replace(_SHIPPED, limit=200, test=(4, 24), reserve=5.0),
    "tiny": dataclasses.replace(
        SMALL_SIZES["tiny"],
        vae_channels=(8,) * 4,  # as many as the shipped VAE has
        pose_channels=(4, 4, 4),
        pose_strides=(2, 2, 2),
        limit=4,
        test=(1, 18),
        max_steps=2,
    ),
}
"""`SmallSize`s: all `limit` scenes are rendered before the first training, `max_steps` is that of a training. Scenes of
`encode_scenes`, which divides `limit`, have a number of frames that divides the test set's."""
