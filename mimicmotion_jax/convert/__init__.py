"""Conversion between the official PyTorch checkpoints and ours, strict in both directions."""

from mimicmotion_jax.convert.export import export_torch
from mimicmotion_jax.convert.official import convert

__all__ = ["convert", "export_torch"]
