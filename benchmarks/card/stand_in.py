"""Stand-ins for the networks of FVD and FID-VID, trained on the synthetic world by benchmarks/stand_in.py.

The real ones, Inception-I3D and a 3-D ResNet trained on Kinetics, cannot be had without a download, and know nothing of
drawn people. A distance by a stand-in says which of two methods is nearer to the true videos. It compares with nothing
that others publish, and so has a name of its own everywhere.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.metrics.frechet import frechet_distance
from mimicmotion_jax.synthetic.motion import kinds_of

FVD, FID_VID = "stand_in_fvd", "stand_in_fid_vid"
TEMPORAL = {FVD: 3, FID_VID: 1}
"""Frames that a block sees: one network knows motion, the other nothing of the frames' order."""
KINDS = tuple(kinds_of("free"))
WINDOW, HEIGHT, WIDTH = 16, 64, 48
WEIGHTS = Path(__file__).parent / "stand_in.npz"

_CHANNELS, _GROUPS = (16, 32, 64, 96), 8
_BATCH = 32  # windows that are computed together


class Block(nnx.Module):
    """Residual block that halves height and width; between its convolutions it looks at the frames before and after.

    Convolutions apart in space and time are those of R(2+1)D (Tran et al., CVPR 2018), and fast on a CPU.
    """

    def __init__(self, in_channels: int, channels: int, temporal: int, rngs: nnx.Rngs):
        conv = functools.partial(nnx.Conv, rngs=rngs)
        self.norm1 = nnx.GroupNorm(in_channels, _GROUPS, rngs=rngs)
        self.conv1 = conv(in_channels, channels, (3, 3), 2, padding=1)
        self.time = nnx.Linear(temporal * channels, channels, rngs=rngs) if temporal > 1 else None
        self.norm2 = nnx.GroupNorm(channels, _GROUPS, rngs=rngs)
        self.conv2 = conv(channels, channels, (3, 3), padding=1)
        self.shortcut = conv(in_channels, channels, (1, 1), 2)

    def __call__(self, x: Float[Array, "n t h w cin"]) -> Float[Array, "n t h2 w2 cout"]:
        """Return features at half the size."""
        inner = self.conv1(nnx.relu(self.norm1(x)))
        if self.time is not None:
            inner = self.time(_with_neighbours(nnx.relu(inner)))
        return self.shortcut(x) + self.conv2(nnx.relu(self.norm2(inner)))


class StandIn(nnx.Module):
    """Network that tells kinds of motion (`KINDS`) apart.

    Args:
        temporal: frames that a block sees, 3 or 1.
        rngs: of the initial values.
    """

    def __init__(self, temporal: int, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, _CHANNELS[0], (3, 3), 2, padding=1, rngs=rngs)
        self.blocks = nnx.List([Block(*pair, temporal, rngs) for pair in itertools.pairwise(_CHANNELS)])
        self.norm = nnx.GroupNorm(_CHANNELS[-1], _GROUPS, rngs=rngs)
        self.classify = nnx.Linear(_CHANNELS[-1], len(KINDS), rngs=rngs)

    def features(self, clips: Float[Array, "n {WINDOW} {HEIGHT} {WIDTH} 3"]) -> Float[Array, "n d"]:
        """Return the features of the last layer, their mean over all positions, for frames of 0 to 255."""
        x = self.stem(clips.astype(jnp.float32) / 127.5 - 1)
        for block in self.blocks:
            x = block(x)
        return nnx.relu(self.norm(x)).mean((1, 2, 3))

    def __call__(self, clips: Float[Array, "n {WINDOW} {HEIGHT} {WIDTH} 3"]) -> Float[Array, "n kinds"]:
        """Return the logits of the kinds of motion."""
        return self.classify(self.features(clips))


def shrink(frames: np.ndarray) -> np.ndarray:
    """Resize frames [f, h, w, 3] to the networks' size, each pixel the mean of those that it covers."""
    return np.stack([cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames])


def save(networks: Mapping[str, StandIn], path: Path) -> None:
    """Write both networks' parameters in float16."""
    arrays: dict[str, np.ndarray] = {}
    for name, network in networks.items():
        leaves = jax.tree.leaves_with_path(nnx.state(network, nnx.Param))
        arrays |= {_key(name, place): np.asarray(leaf, np.float16) for place, leaf in leaves}
    np.savez(path, allow_pickle=False, **arrays)


@functools.cache
def load(path: Path = WEIGHTS) -> dict[str, StandIn]:
    """Read both networks."""
    with np.load(path) as arrays:
        return {name: _filled(StandIn(size, nnx.Rngs(0)), name, arrays) for name, size in TEMPORAL.items()}


def distances(
    videos: Sequence[np.ndarray], truths: Sequence[np.ndarray], networks: Mapping[str, StandIn] | None = None
) -> dict[str, float]:
    """Compute the Frechet distances between the windows of 16 frames of two sets of videos.

    Args:
        videos: frames [f, h, w, 3] of 0 to 255, at least 16 of them.
        truths: the true videos.
        networks: those that are shipped, unless others are given.
    """
    sets = [[shrink(frames) for frames in those] for those in (videos, truths)]
    return {
        name: frechet_distance(*(window_features(network, those) for those in sets))
        for name, network in (networks or load()).items()
    }


def window_features(network: StandIn, videos: Sequence[np.ndarray]) -> np.ndarray:
    """Features [windows, d] of all windows of all videos, which have the networks' size, in order."""
    windows = [frames[start : start + WINDOW] for frames in videos for start in range(len(frames) - WINDOW + 1)]
    found = []
    for first in range(0, len(windows), _BATCH):
        some = windows[first : first + _BATCH]
        padding = [some[-1]] * (_BATCH - len(some))  # one shape, compiled once
        found.append(np.asarray(_features(network, np.stack(some + padding)))[: len(some)])
    return np.concatenate(found)


@nnx.jit
def _features(network: StandIn, clips: Array) -> Array:
    return network.features(clips)


def _with_neighbours(x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w 3*c"]:
    """Join each frame's channels with those of the frames before and after, zeros at the ends."""
    padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)])
    return jnp.concatenate([padded[:, tap : tap + x.shape[1]] for tap in range(3)], axis=-1)


def _filled(network: StandIn, name: str, arrays: Mapping[str, np.ndarray]) -> StandIn:
    state = nnx.state(network, nnx.Param)
    state = jax.tree.map_with_path(lambda place, _: jnp.asarray(arrays[_key(name, place)], jnp.float32), state)
    nnx.update(network, state)
    return network


def _key(name: str, place: Any) -> str:
    return f"{name}.{jax.tree_util.keystr(place, simple=True, separator='.')}"
