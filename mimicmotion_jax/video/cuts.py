"""Hard cuts and still stretches of a video, found on small pictures while its frames pass by.

Edges of 32 x 32 grey pixels are compared: light that flashes or is dimmed leaves them where they are. An edge of g grey
levels counts g / (|g| + 4), so that a bright person does not outweigh the room. The distance of two pictures with edges
a and b is 1 - (a.b + e) / ((|a|^2 + |b|^2) / 2 + e), where e stands for noise: 0 for the same
picture, about 1 for two that have nothing in common.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Frame = UInt8[np.ndarray, "height width 3"]

_SIDE = 32  # pixels of a small picture
_SOFT = 4.0  # grey levels of an edge that counts half
_NOISE = 0.25  # what an edge counts that means nothing
_CUT = 0.4  # least distance across a cut
_RATIO = 2.0  # to the distances around it, so that a camera that shakes or pans does not count
_AROUND = 6  # frames
_FLASH = 4  # frames that the longest flash lasts
_STILL = 3  # grey levels by which a small picture may change, for example where the encoder starts afresh


class CutDetector:
    """Finds cuts and stills among the frames that pass through `watch`; keeps 1 kB of each."""

    def __init__(self) -> None:
        self._pictures: list[UInt8[np.ndarray, "32 32"]] = []

    def watch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames, RGB, as they are, and take note of them."""
        for frame in frames:
            small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
            self._pictures.append(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
            yield frame

    def cuts(self) -> list[int]:
        """Return the frames with which a new shot begins, in ascending order.

        A flash of up to four frames is no cut, nor is a change that is common around it (shaking, panning).
        """
        if len(self._pictures) < 2:
            return []
        edges = _edges(np.stack(self._pictures))
        frames = np.arange(len(edges) - 1)  # each with the next one
        change = _distance(edges[:-1], edges[1:])
        # The second largest of the changes around, since the largest may be another cut.
        around = np.lib.stride_tricks.sliding_window_view(np.pad(change, _AROUND), 2 * _AROUND + 1)
        usual = np.sort(np.delete(around, _AROUND, axis=1), axis=1)[:, -2]
        # Before a flash it looks as after it.
        spans = [(0, 1 + flash) for flash in range(1, _FLASH + 1)] + [(flash, 1) for flash in range(1, _FLASH + 1)]
        starts = [edges[np.maximum(frames - before, 0)] for before, _ in spans]
        ends = [edges[np.minimum(frames + after, len(edges) - 1)] for _, after in spans]
        lasting = np.min([_distance(a, b) for a, b in zip(starts, ends, strict=True)], axis=0)
        cut = (change > _CUT) & (change > _RATIO * (usual + 0.02)) & (lasting > 0.6 * change)
        return (np.flatnonzero(cut) + 1).tolist()

    def stills(self, min_frames: float) -> list[range]:
        """Return the stretches of more than `min_frames` frames in which the picture stands still."""
        found, start = [], 0
        pictures = self._pictures
        for frame in range(1, len(pictures) + 1):
            if frame == len(pictures) or cv2.absdiff(pictures[frame], pictures[start]).max() > _STILL:
                if frame - start > min_frames:
                    found.append(range(start, frame))
                start = frame
        return found


def split_at(cuts: Sequence[int], num_frames: int) -> list[range]:
    """Ranges of frames between the cuts, from 0 to `num_frames`."""
    return [range(*bounds) for bounds in itertools.pairwise([0, *cuts, num_frames])]


def _edges(pictures: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n edges"]:
    """Differences of neighbouring pixels, to the right and below, compressed to (-1, 1)."""
    grey = pictures.astype(np.float32)
    across, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    edges = np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], axis=1)
    return edges / (np.abs(edges) + _SOFT)


def _distance(a: Float[np.ndarray, "n edges"], b: Float[np.ndarray, "n edges"]) -> Float[np.ndarray, " n"]:
    noise = _NOISE**2 * a.shape[-1]
    return 1 - ((a * b).sum(-1) + noise) / (((a**2).sum(-1) + (b**2).sum(-1)) / 2 + noise)
