"""Data of the ablation on a card: a fixed world to train on, and test sequences with the detector's mistakes."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool

from card.ablation_table import Variant
from card.small_batches import Draw, EncodedWorld
from card.small_world import WorldPlan
from mimicmotion_jax.pose.keypoints import Body, Keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.synthetic.detector import DetectorConfig
from mimicmotion_jax.training.config import TrainConfig

POSES = {"brightness": "poses", "threshold": "threshold_poses"}
"""Array of drawn skeletons by the way in which they show confidence."""

FIGURE_7 = DetectorConfig(duplicated=0.08, swapped=0.08, duplicated_hidden=0.6, hallucinated=1.0)
"""Detector with many mistakes of the paper's figure 7: hands found twice, swapped hands, hidden elbows found."""

_ELBOWS = [Body.R_ELBOW, Body.L_ELBOW]
_INDICES_OF_SEED = 2**30  # samples of seed s are numbered from s times this; a number and the options decide on noise


@dataclasses.dataclass(frozen=True)
class AblationPlan(WorldPlan):
    """Description of scenes whose skeletons are drawn in both ways."""

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of the arrays of a scene that training needs."""
        arrays = super().arrays
        return arrays | {POSES["threshold"]: arrays["poses"]}

    def make(self, number: int) -> dict[str, Any]:
        """Render scene `number`.

        Returns:
            The values of `WorldPlan.make`, skeletons with a threshold, and `mistaken` and `hidden_elbow` [F]: frames
            where a hand is found in the other one's place, or an elbow that cannot be seen.
        """
        made = super().make(number)
        detected, exact = made["keypoints"], made["exact"]
        style = dataclasses.replace(self.style, confidence="threshold")
        elbow = (exact.body_score[:, 0, _ELBOWS] == 0) & (detected.body_score[:, 0, _ELBOWS] > 0)
        return made | {
            POSES["threshold"]: draw_poses(detected, self.height, self.width, style=style),
            "mistaken": mistaken_hands(detected, exact),
            "hidden_elbow": elbow.any(-1),
        }


def mistaken_hands(detected: Keypoints, exact: Keypoints) -> Bool[np.ndarray, " frames"]:
    """Find the frames in which one person's hand is found nearer to the other hand than to itself."""
    size = np.array([exact.width, exact.height])

    def distance(hands: np.ndarray) -> np.ndarray:
        return np.linalg.norm((detected.hands[:, 0] - hands) * size, axis=-1).mean(-1)

    true = exact.hands[:, 0]
    found = (detected.hands_score[:, 0] > 0).any(-1)
    return np.any(found & (distance(true[:, ::-1]) < distance(true)), axis=-1)


def variant_samples(encoded: EncodedWorld, config: TrainConfig, variant: Variant, seed: int) -> Draw:
    """Make the function that draws the samples of a training.

    All variants see the same scenes, frames and noise of a seed, whatever the order in which scenes were finished.
    Without hand enhancement the mask is empty, so that the weight is 1 everywhere.

    Args:
        encoded: a world that is complete.
        config: of the training; its seed is that of the noise, together with the samples' numbers.
        variant: row of the table.
        seed: of the row.
    """
    first, end = encoded.kept()
    places = first + np.argsort(encoded.world.numbers[first:end])

    def draw(samples: range) -> dict[str, np.ndarray]:
        random = np.random.default_rng([seed, 1, samples.start])
        scenes = places[random.integers(len(places), size=len(samples))]
        batch = encoded.take(scenes, config, seed, samples, POSES[variant.confidence])
        batch["index"] += np.uint32(seed * _INDICES_OF_SEED)
        batch["hand_mask"] &= variant.hand_weight > 1
        return batch

    return draw
