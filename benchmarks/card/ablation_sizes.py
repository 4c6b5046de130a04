"""Sizes of the ablation: for a card, minutes on a CPU, and a test."""

import dataclasses

from card.small_sizes import SMALL_SIZES

SEEDS = (0, 1, 2)

_GOING_ON = 5e-4  # peak of the learning rate; half of what the networks were trained with from the beginning
_SHIPPED = dataclasses.replace(SMALL_SIZES["full"], rate=_GOING_ON)

ABLATION_SIZES = {
    # Networks of mimicmotion_jax/weights/small.
    "full": dataclasses.replace(_SHIPPED, limit=3000, test=(8, 36), reserve=10.0),
    "middle": dataclasses.replace(
        _SHIPPED, clips=2, dtype="float32", workers=1, limit=20, test=(1, 24), reserve=5.0, encode_scenes=1
    ),
    # Networks of mimicmotion_jax/weights/small-student, which are compiled in less time.
    "tiny": dataclasses.replace(
        SMALL_SIZES["middle"],
        channels=(64, 128),
        heads=(2, 4),
        width=64,
        height=64,
        clips=2,
        scene_frames=SMALL_SIZES["tiny"].scene_frames,
        encode_scenes=1,
        limit=4,
        test=(1, 18),
        max_steps=2,
    ),
}
"""`SmallSize`s: all `limit` scenes are rendered before the first training, `max_steps` is that of a training. Scenes of
`encode_scenes`, which divides `limit`, have a number of frames that divides the test set's."""
