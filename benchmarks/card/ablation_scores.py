"""Scores of the ablation's videos."""

from collections.abc import Sequence

import numpy as np

from card import small_scores, stand_in
from card.ablation_table import MISTAKEN, SEAM, TRUE_SEAM
from card.small_scores import Scene, Videos
from mimicmotion_jax.diffusion.fusion import WindowPlan, plan_seams
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.metrics.temporal import frame_differences, seam_discontinuity
from mimicmotion_jax.pose.hands import hand_mask


def score(videos: Videos, scenes: Sequence[Scene], plan: WindowPlan | None = None) -> dict[str, float]:
    """Score all frames but the first ones; hands are where they are, not where the detector finds them.

    Args:
        videos: as many as scenes.
        scenes: from `AblationPlan.make`.
        plan: windows in which the videos were generated; None leaves out what happens where they change.
    """
    scores = small_scores.score(videos, [{**scene, "keypoints": scene["exact"]} for scene in scenes])
    found = [_mistaken_hand_psnr(video, scene) for video, scene in zip(videos, scenes, strict=True)]
    if not np.isnan(mistaken := average_psnr(np.concatenate(found))):
        scores[MISTAKEN] = mistaken
    if plan is not None:
        seams = plan_seams(plan, videos.shape[1])
        for name, those in ((SEAM, videos), (TRUE_SEAM, [scene["frames"] for scene in scenes])):
            ratios = [seam_discontinuity(frame_differences(video[1:]), seams) for video in those]
            scores[name] = float(np.mean(ratios))
    scores |= stand_in.distances([video[1:] for video in videos], [scene["frames"][1:] for scene in scenes])
    return {name: round(value, 4) for name, value in scores.items()}


def _mistaken_hand_psnr(video: np.ndarray, scene: Scene) -> np.ndarray:
    """PSNR of the hands in the frames where the detector takes one for the other."""
    frames = 1 + np.flatnonzero(scene["mistaken"][1:])
    hands = hand_mask(scene["exact"], *video.shape[1:3])
    return psnr(video[frames], scene["frames"][frames], hands[frames])
