"""Examples to a head, in worker processes: NumPy and SciPy, no torch, no event loop."""
