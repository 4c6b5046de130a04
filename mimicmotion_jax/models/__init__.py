"""Networks in Flax NNX, channels last: SVD's UNet and VAE, CLIP's image encoder, PoseNet. No sharding, no files."""
