"""Experiments for whoever has a card or a TPU for a few minutes; `gpu.py` and `tpu.py` run them."""
