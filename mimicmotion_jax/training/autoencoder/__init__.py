"""Options, loss, initialisation and results of the VAE's training; the task is `training.tasks.autoencoder`."""
