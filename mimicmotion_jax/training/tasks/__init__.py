"""Kinds of training: `diffusion` (UNet and PoseNet) and `autoencoder` (the VAE), both run by `training.trainer`."""
