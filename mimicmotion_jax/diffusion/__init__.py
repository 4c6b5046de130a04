"""Mathematics of sampling: preconditioning, noise schedule, window plans, noise, the denoising loop. Pure functions."""
