"""Whole-body keypoints with confidence: the type and its files, detection, alignment to another body, drawing."""
