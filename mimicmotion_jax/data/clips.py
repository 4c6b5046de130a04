"""Making a training sample of a record: choice of frames, crop, drawn poses and the mask of the hands.

Everything random is a function of the seed and the sample's number, so that any process, worker or resumed run makes
the same sample.
"""

import dataclasses
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.data.record import PoseVideo
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.hands import PADDING, THRESHOLD, hand_mask
from mimicmotion_jax.pose.options import DrawOptions
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.image import Crop


@config_dataclass
class DataConfig(DrawOptions):
    """Choice of the dataset and of the clips taken from it."""

    dataset: str = ""
    """Folder written by `mimicmotion prepare`, local or gs://."""
    width: Annotated[int, Field(ge=64)] = 1024
    """Width of the clips in pixels."""
    height: Annotated[int, Field(ge=64)] = 576
    """Height of the clips in pixels."""
    num_frames: Annotated[int, Field(ge=1)] = 16
    """Number of frames of a clip."""
    interval: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 4)
    """Smallest and largest distance between a clip's frames, in frames of the video; drawn uniformly."""
    reference_slot: bool = False
    """Make frame 0 of the clip the reference with its own pose; it counts in num_frames."""
    flip: bool = False
    """Mirror every other sample, and the person's left and right with it."""
    random_crop: bool = False
    """Crop anywhere in the picture instead of in its middle."""
    encodings: bool = False
    """Read stored latents and embeddings instead of pixels."""
    hand_threshold: Annotated[float, Field(ge=0)] = THRESHOLD
    """Confidence that all 21 keypoints of a hand must exceed for the hand to be in the mask."""
    hand_padding: Annotated[float, Field(ge=0)] = PADDING
    """Margin of the mask around a hand's bounding box, as a fraction of its size."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Number of worker processes; 0 reads in threads of this process."""
    prefetch: Annotated[int, Field(ge=0)] = 2
    """Number of batches that each worker makes ahead."""

    def __post_init__(self) -> None:
        if self.interval[0] > self.interval[1]:
            raise ValueError(f"interval {self.interval} is empty; give the smaller distance first")
        if self.reference_slot and self.num_frames < 2:
            raise ValueError("a clip with a reference_slot needs at least 2 frames")
        if self.encodings and (self.flip or self.random_crop):
            raise ValueError("stored encodings cannot be flipped or cropped; turn flip and random_crop off")

    @property
    def num_moving(self) -> int:
        """Number of frames at equal intervals, without the reference's slot."""
        return self.num_frames - int(self.reference_slot)

    @property
    def min_video_frames(self) -> int:
        """Number of frames of the shortest video that a clip can be taken from."""
        return (self.num_moving - 1) * self.interval[0] + 1


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """Random choices that turn a record into a sample."""

    frames: tuple[int, ...]
    """Numbers of the record's frames; the reference comes first if it has a slot."""
    reference: int
    flip: bool
    crop: tuple[float, float]
    """Position of the crop in the picture, (x, y) in [0, 1]; 1/2 is the middle."""


def plan_clip(config: DataConfig, num_frames: int, seed: int, sample: int) -> ClipPlan:
    """Draw the choices for sample number `sample` of a video of `num_frames` (at least `min_video_frames`).

    Interval, start and reference frame are uniform and independent; the interval is limited by the video's length.
    """
    random = np.random.default_rng([seed, sample])
    steps = config.num_moving - 1
    low, high = config.interval
    interval = int(random.integers(low, min(high, (num_frames - 1) // steps) + 1)) if steps else 1
    start = int(random.integers(num_frames - steps * interval))
    reference = int(random.integers(num_frames))
    frames = tuple(range(start, start + steps * interval + 1, interval))
    flip = config.flip and bool(random.integers(2))
    crop = (float(random.random()), float(random.random())) if config.random_crop else (0.5, 0.5)
    return ClipPlan((reference, *frames) if config.reference_slot else frames, reference, flip, crop)


def make_sample(record: PoseVideo, config: DataConfig, seed: int, sample: int, downscale: int) -> dict[str, Any]:
    """Make one sample; `loader.ClipLoader` lists its arrays.

    Args:
        record: a video of at least `config.min_video_frames`.
        config: options.
        seed: with `sample` determines everything random.
        sample: number of the sample.
        downscale: pixels per latent cell.

    Raises:
        InputError: a damaged record.
    """
    plan = plan_clip(config, record.num_frames, seed, sample)
    target = (config.height, config.width)
    crop = Crop.plan((record.keypoints.height, record.keypoints.width), target, plan.crop)
    keypoints = crop_keypoints(record.poses(plan.frames), crop)
    if plan.flip:
        keypoints = keypoints.mirrored()
    cells = (config.height // downscale, config.width // downscale)
    common = {
        "index": np.uint32(sample),
        "poses": draw_poses(keypoints, *target, style=config.draw_style),
        "hand_mask": hand_mask(keypoints, *cells, config.hand_threshold, config.hand_padding),
    }
    if config.encodings:
        if record.latents is None or record.embeddings is None:
            raise InputError("a record holds no encodings; prepare the videos again with encode=CHECKPOINT.")
        latents = record.latents.astype(np.float32)
        return common | {
            "latents": latents[list(plan.frames)],
            "reference_latents": latents[plan.reference],
            "embedding": record.embeddings[plan.reference].astype(np.float32),
        }
    pixels = crop.pixels(record.frames([plan.reference, *plan.frames]))
    if plan.flip:
        pixels = np.ascontiguousarray(pixels[:, :, ::-1])
    return common | {"frames": pixels[1:], "reference": pixels[0]}
