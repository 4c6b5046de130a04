"""Evaluation under named protocols: generate a test set, score it, and show it on one page."""
