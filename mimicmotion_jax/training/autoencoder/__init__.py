"""Training the VAE of a model that is trained from scratch; what `train_vae.py` calls."""
