"""A world of drawn people whose every keypoint is known, as training data and as a test set."""
