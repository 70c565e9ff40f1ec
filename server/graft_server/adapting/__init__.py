"""From streams of examples to versions: ingest, publication, and what the worker does to find the best head.

`adaptations` and what it leads to live in the server; `train` and what it uses run in a worker.
"""
