"""Pre-trained models: their sources, their identity, and the preparation of raw inputs.

All modules but the sub-package `torch` are free of torch, so that the serving process can use them.
"""
