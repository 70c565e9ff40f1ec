"""Pre-trained models: where they come from, what identifies them, and how raw inputs become their inputs.

Everything here but the sub-package `torch` is free of torch, so that the serving process can use it.
"""
