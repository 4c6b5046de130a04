"""How good a generated video is: against the truth frame by frame, as a distribution of clips, and over time."""

from mimicmotion_jax.metrics.features import clip_features, lpips
from mimicmotion_jax.metrics.frames import average_psnr, psnr, ssim
from mimicmotion_jax.metrics.frechet import frechet_distance
from mimicmotion_jax.metrics.silhouette import foreground, intersection_over_union
from mimicmotion_jax.metrics.temporal import frame_differences, seam_discontinuity, yt_slice
from mimicmotion_jax.metrics.weights import MetricNetwork, load_metric_network

__all__ = [
    "MetricNetwork",
    "average_psnr",
    "clip_features",
    "foreground",
    "frame_differences",
    "frechet_distance",
    "intersection_over_union",
    "load_metric_network",
    "lpips",
    "psnr",
    "seam_discontinuity",
    "ssim",
    "yt_slice",
]
