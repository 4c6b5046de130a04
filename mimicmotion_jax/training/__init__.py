"""Training: from clips to a model, on one device or many."""
