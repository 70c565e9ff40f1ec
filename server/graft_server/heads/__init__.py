"""Heads: small functions from an example's features to an answer and a novelty, one kind for each task.

NumPy only: the serving process and the training workers compute a head with the very same code.
`graph`, which writes a head as an ONNX graph, is imported by workers alone.
"""

from graft_server.heads.codec import AnyHead, AnyOutput, decode, encode
from graft_server.heads.head import Head, HeadOutput, KernelMap, LinearMap, Member
from graft_server.heads.multilabel import MultiLabelHead, MultiLabelOutput
from graft_server.heads.novelty import ABSTAIN_ABOVE, Novelty
from graft_server.heads.regression import RegressionHead, RegressionOutput, Spread

__all__ = [
    "ABSTAIN_ABOVE",
    "AnyHead",
    "AnyOutput",
    "Head",
    "HeadOutput",
    "KernelMap",
    "LinearMap",
    "Member",
    "MultiLabelHead",
    "MultiLabelOutput",
    "Novelty",
    "RegressionHead",
    "RegressionOutput",
    "Spread",
    "decode",
    "encode",
]
