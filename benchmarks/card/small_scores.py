"""Scores of the small model on people whom training never shows, and a picture of its frames."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from flax import nnx

from mimicmotion_jax import sharding
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.evaluation.protocols import get_protocol
from mimicmotion_jax.inference.engine import Batch, Engine, Networks
from mimicmotion_jax.metrics.frames import average_psnr, psnr, ssim
from mimicmotion_jax.metrics.silhouette import foreground, intersection_over_union
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.hands import hand_mask
from mimicmotion_jax.video.compose import side_by_side

Scene = Mapping[str, Any]
Videos = np.ndarray  # uint8 [scenes, frames, height, width, 3]


def generate(
    model: ModelConfig, networks: Mapping[str, nnx.Module], scenes: Sequence[Scene], sampling: Any, seed: int = 0
) -> Videos:
    """Generate all scenes from their first frames and their poses; the first frame of a result stands for it.

    Scene i has the noise of seed `seed * len(scenes) + i`.
    """
    engine = _engine(model, networks)
    batch = Batch(
        images=np.stack([scene["frames"][0] for scene in scenes]),
        poses=[scene["poses"] for scene in scenes],
        seeds=seed * len(scenes) + np.arange(len(scenes), dtype=np.uint32),
    )
    latents = engine.denoise(batch, sampling)
    return _pixels(engine, latents, sampling)


def decode(
    model: ModelConfig, networks: Mapping[str, nnx.Module], latents: np.ndarray, sampling: SamplingConfig
) -> Videos:
    """Decode latents [scenes, frames, h, w, c] that are not scaled."""
    return _pixels(_engine(model, networks), latents.astype(np.float32) * model.vae.scaling_factor, sampling)


def score(videos: Videos, scenes: Sequence[Scene]) -> dict[str, float]:
    """Mean scores of all frames but the first ones, by the rules of protocol `synthetic`."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_score_scene, videos, scenes))
    values = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    means = {name: average_psnr(value) if "psnr" in name else float(value.mean()) for name, value in values.items()}
    return {name: round(value, 4) for name, value in means.items()}


def repeat_first(scenes: Sequence[Scene]) -> Videos:
    """Videos that show the first frame throughout."""
    return np.stack([np.broadcast_to(scene["frames"][:1], scene["frames"].shape) for scene in scenes])


def strip(scenes: Sequence[Scene], videos: Videos, times: int = 4) -> np.ndarray:
    """Draw a row per scene: its first frame, then pose, generated and true frame at some times."""
    rows = []
    for scene, video in zip(scenes, videos, strict=True):
        panels, labels = [scene["frames"][0]], ["reference"]
        for time in np.linspace(1, len(video) - 1, times).round().astype(int):
            panels += [scene["poses"][time], video[time], scene["frames"][time]]
            labels += ["pose", "generated", "true"]
        rows.append(side_by_side(panels, labels=labels)[0])
    return np.concatenate(rows)


def _score_scene(video: np.ndarray, scene: Scene) -> dict[str, np.ndarray]:
    frames, truth, background = video[1:], scene["frames"][1:], scene["background"]
    hands = hand_mask(scene["keypoints"][1:], *truth.shape[1:3])
    threshold = get_protocol("synthetic").foreground_threshold
    masks = (foreground(pixels, background, threshold) for pixels in (frames, truth))
    return {
        "psnr": psnr(frames, truth),
        "ssim": ssim(frames, truth),
        "hand_psnr": psnr(frames, truth, hands),
        "foreground_iou": intersection_over_union(*masks),
    }


def _engine(model: ModelConfig, networks: Mapping[str, nnx.Module]) -> Engine:
    mesh = sharding.sampling_mesh(1)
    return Engine(model, Networks(**jax.device_put(dict(networks), sharding.replicated(mesh))), mesh)


def _pixels(engine: Engine, latents: np.ndarray, sampling: SamplingConfig) -> Videos:
    frames = np.concatenate(list(engine.decode(latents, sampling)), axis=1)
    return np.round(frames * 255).astype(np.uint8)
