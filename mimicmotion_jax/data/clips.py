"""From a record to a training sample: which frames, how they are cropped, what is drawn and weighed.

Everything random is a function of the seed and the sample's number, so that any process, worker or resumed run makes
the same sample.
"""

import dataclasses
from typing import Annotated

import numpy as np
from jaxtyping import Int
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.data.record import PoseVideo
from mimicmotion_jax.pose.crop import crop_keypoints
from mimicmotion_jax.pose.hands import PADDING, THRESHOLD, hand_mask
from mimicmotion_jax.pose.options import DrawOptions
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.video.image import Crop


@config_dataclass
class DataConfig(DrawOptions):
    """Which clips are taken from which dataset."""

    dataset: str = ""  # folder written by prepare_data.py, local or gs://
    width: Annotated[int, Field(ge=64)] = 1024  # pixels
    height: Annotated[int, Field(ge=64)] = 576
    num_frames: Annotated[int, Field(ge=1)] = 16
    interval: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 4)
    """Distance between a clip's frames, in frames of the video: drawn uniformly, as far as the video is long enough."""
    reference_slot: bool = False  # frame 0 of the clip is the reference with its own pose; num_frames includes it
    flip: bool = False  # every other sample is mirrored, the person's left and right with it
    random_crop: bool = False  # the crop lies anywhere in the picture instead of in its middle
    encodings: bool = False  # latents and embeddings that prepare_data.py stored, instead of pixels
    hand_threshold: Annotated[float, Field(ge=0)] = THRESHOLD
    hand_padding: Annotated[float, Field(ge=0)] = PADDING
    num_workers: Annotated[int, Field(ge=0)] = 0  # processes; 0 reads in threads of this one
    prefetch: Annotated[int, Field(ge=0)] = 2  # batches made ahead, by each worker

    def __post_init__(self) -> None:
        if self.interval[0] > self.interval[1]:
            raise ValueError(f"interval {self.interval} is empty; give the smaller distance first")
        if self.reference_slot and self.num_frames < 2:
            raise ValueError("a clip with a reference_slot needs at least 2 frames")
        if self.encodings and (self.flip or self.random_crop):
            raise ValueError("stored encodings cannot be flipped or cropped; turn flip and random_crop off")

    @property
    def num_moving(self) -> int:
        """Frames at equal intervals, without the reference's slot."""
        return self.num_frames - int(self.reference_slot)

    @property
    def min_video_frames(self) -> int:
        """The shortest video that a clip can be taken from, frames."""
        return (self.num_moving - 1) * self.interval[0] + 1


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """The choices that make a sample of a record."""

    frames: tuple[int, ...]
    """Of the record, the reference's slot first where there is one."""
    reference: int
    flip: bool
    crop: tuple[float, float]
    """Place of the crop in what sticks out, (x, y) in [0, 1]; 1/2 is the middle."""


def plan_clip(config: DataConfig, num_frames: int, seed: int, sample: int) -> ClipPlan:
    """Draw the choices for sample number `sample`, from a video of `num_frames` (at least `min_video_frames`).

    Interval, start and reference frame are uniform and independent, but that an interval must leave room for the clip.
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


def make_sample(
    record: PoseVideo, config: DataConfig, seed: int, sample: int, downscale: int
) -> dict[str, Int[np.ndarray, "..."] | np.ndarray]:
    """One sample; what it holds is listed at `loader.ClipLoader`.

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
