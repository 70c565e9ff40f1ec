"""Heads: small functions from an example's features to calibrated probabilities and a novelty.

NumPy only: the serving process and the training workers compute a head with the very same code.
`graph`, which writes a head as an ONNX graph, is imported by workers alone.
"""

from graft_server.heads.codec import decode, encode
from graft_server.heads.head import Head, HeadOutput, KernelMap, LinearMap, Member
from graft_server.heads.novelty import ABSTAIN_ABOVE, Novelty

__all__ = [
    "ABSTAIN_ABOVE",
    "Head",
    "HeadOutput",
    "KernelMap",
    "LinearMap",
    "Member",
    "Novelty",
    "decode",
    "encode",
]
