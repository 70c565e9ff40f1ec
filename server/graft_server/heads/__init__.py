"""Heads: small functions from an example's features to an answer and a novelty, one kind for each task.

NumPy only: the serving process and the training workers compute a head with the very same code.
`graph`, which writes a head as an ONNX graph, is imported by workers alone.
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
