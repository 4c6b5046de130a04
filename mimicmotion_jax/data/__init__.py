"""Training data: videos become records of frames and keypoints (TFDS on Beam), records become clips (Grain)."""
