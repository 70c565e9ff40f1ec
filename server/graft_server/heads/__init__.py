"""Heads: small functions from an input's features to an answer and a novelty, one kind for each task.

NumPy only: the serving process and the training workers compute a head with the same code.
Only workers import `graph`, which writes a head as an ONNX graph.
"""

from graft_server.heads.codec import HEADS, decode, encode
from graft_server.heads.head import Head, HeadOutput
from graft_server.heads.maps import KernelMap, LinearMap, Member
from graft_server.heads.novelty import ABSTAIN_ABOVE, Novelty

__all__ = [
    "ABSTAIN_ABOVE",
    "HEADS",
    "Head",
    "HeadOutput",
    "KernelMap",
    "LinearMap",
    "Member",
    "Novelty",
    "decode",
    "encode",
]
