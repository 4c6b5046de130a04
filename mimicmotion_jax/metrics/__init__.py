"""Metrics of generated videos: frame by frame against the true video, as a distribution of clips, and over time."""

from mimicmotion_jax.metrics.features import clip_features, lpips
from mimicmotion_jax.metrics.frames import average_psnr, psnr, ssim
from mimicmotion_jax.metrics.frechet import frechet_distance
from mimicmotion_jax.metrics.network import MetricNetwork
from mimicmotion_jax.metrics.silhouette import foreground, intersection_over_union
from mimicmotion_jax.metrics.temporal import frame_differences, seam_discontinuity, yt_slice

__all__ = [
    "MetricNetwork",
    "average_psnr",
    "clip_features",
    "foreground",
    "frame_differences",
    "frechet_distance",
    "intersection_over_union",
    "lpips",
    "psnr",
    "seam_discontinuity",
    "ssim",
    "yt_slice",
]
