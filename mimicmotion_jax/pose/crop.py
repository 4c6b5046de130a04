"""Keypoints in a crop of their picture."""

import dataclasses

import numpy as np

from mimicmotion_jax.pose.keypoints import GROUPS, Keypoints
from mimicmotion_jax.video.image import Crop


def crop_keypoints(keypoints: Keypoints, crop: Crop) -> Keypoints:
    """Keypoints in the cropped picture."""
    resized, offset, target = (np.asarray(pair[::-1], np.float32) for pair in (crop.resized, crop.offset, crop.target))
    moved = {name: (getattr(keypoints, name) * resized - offset) / target for name in GROUPS}
    return dataclasses.replace(keypoints, **moved, width=crop.target[1], height=crop.target[0])
