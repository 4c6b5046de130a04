"""A metric network with its weights."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mimicmotion_jax.metrics.i3d import I3D
from mimicmotion_jax.metrics.perceptual import LPIPS
from mimicmotion_jax.metrics.resnet3d import ResNet3D

NetworkName = Literal["i3d", "resnet3d", "lpips"]


@dataclasses.dataclass(frozen=True, eq=False)
class MetricNetwork:
    """A metric network with its weights, as `convert.metric_networks.load_metric_network` reads it.

    Attributes:
        name: "i3d" (FVD), "resnet3d" (FID-VID) or "lpips".
        module: the network, float32.
        sha256: hash of each weight file by the file's name; reported beside every number computed with it.
    """

    name: NetworkName
    module: I3D | ResNet3D | LPIPS
    sha256: Mapping[str, str]
