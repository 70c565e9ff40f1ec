"""Training: from examples to a head, in worker processes, with NumPy and SciPy, without torch or an event loop."""
