"""The mathematics: preconditioning and schedule, window plans, noise, the denoising scan. Pure functions."""
