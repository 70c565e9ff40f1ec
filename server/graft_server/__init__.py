"""The Graft server: streams of labelled examples in, served classifiers out. Start reading at `app`."""

import os

# Before NumPy is imported: its threads wait for each other by spinning, on the cores that the encoder needs. With
# them, serving a kernel head took 7.5 ms of processor time a text instead of 4.8 (benchmarks/serving). Where two
# things at a time pay, `training.solvers.threads` does them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
