"""Scores of the ablation's videos, and pictures of them like the paper's figures 7 and 9."""

from collections.abc import Mapping, Sequence

import numpy as np

from card import small_scores
from card.ablation_table import MISTAKEN, SEAM, TRUE_SEAM
from card.ablation_world import POSES
from card.small_scores import Scene, Videos
from mimicmotion_jax.diffusion.fusion import WindowPlan, plan_seams
from mimicmotion_jax.metrics.frames import average_psnr, psnr
from mimicmotion_jax.metrics.temporal import frame_differences, seam_discontinuity, yt_slice
from mimicmotion_jax.pose.hands import hand_mask
from mimicmotion_jax.video.compose import side_by_side


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
    return {name: round(value, 4) for name, value in scores.items()}


def _mistaken_hand_psnr(video: np.ndarray, scene: Scene) -> np.ndarray:
    """PSNR of the hands in the frames where the detector takes one for the other."""
    frames = 1 + np.flatnonzero(scene["mistaken"][1:])
    hands = hand_mask(scene["exact"], *video.shape[1:3])
    return psnr(video[frames], scene["frames"][frames], hands[frames])


def mistakes_strip(scenes: Sequence[Scene], videos: Mapping[str, Videos], most: int = 6) -> np.ndarray:
    """Draw a row per scene: the frame amid the first stretch with a mistaken hand, as every variant generates it.

    Args:
        scenes: those with mistakes come first.
        videos: of all scenes, by the variant's name.
        most: number of rows.
    """
    rows = []
    for number in sorted(range(len(scenes)), key=lambda n: not scenes[n]["mistaken"][1:].any())[:most]:
        scene = scenes[number]
        time = _amid(scene["mistaken"][1:]) + 1
        panels = {"reference": scene["frames"][0], "pose": scene["poses"][time]}
        panels |= {"pose, threshold": scene[POSES["threshold"]][time], "true": scene["frames"][time]}
        panels |= {name: those[number][time] for name, those in videos.items()}
        rows.append(side_by_side(list(panels.values()), height=2 * scene["frames"].shape[1], labels=list(panels))[0])
    return np.concatenate(rows)


def slices_strip(scenes: Sequence[Scene], videos: Mapping[str, Videos], most: int = 6) -> np.ndarray:
    """Draw a row per scene: its middle column of pixels over time, true and as every variant generates it."""
    rows = []
    for number, scene in enumerate(scenes[:most]):
        middle = scene["frames"].shape[2] // 2
        panels = {"true": scene["frames"], **{name: those[number] for name, those in videos.items()}}
        cut = [yt_slice(frames[1:], middle).repeat(4, axis=1) for frames in panels.values()]
        rows.append(side_by_side(cut, labels=list(panels))[0])
    return np.concatenate(rows)


def _amid(there: np.ndarray) -> int:
    """Middle of the first stretch of True values, or of everything."""
    if not there.any():
        return len(there) // 2
    first = int(there.argmax())
    length = int((~there[first:]).argmax()) or len(there) - first
    return first + length // 2
