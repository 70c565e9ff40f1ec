"""A head as an ONNX graph. Imports onnx, so only workers import it.

From `features` (n, d) float32 to `novelty` (n,) and the head's outputs, with a node for each step of the head.
Temperature, thresholds and the novelty's table are inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graft_server.heads.head import GraphOutput, Head
from graft_server.heads.nodes import AXIS, FEATURES, Node, Nodes
from graft_server.heads.novelty import NOVELTY

OPSET = 18
IR_VERSION = 8
"""The IR version of opset 18: runtimes from 2023 on read it."""


def to_onnx(head: Head) -> bytes:
    """Returns the head as a serialised, checked ONNX model."""
    nodes = Nodes()
    nodes.constant(AXIS, np.array([-1]))
    head.write(nodes)
    inputs = [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", head.dimension])]
    outputs = [_info(it) for it in (*head.outputs, GraphOutput(NOVELTY, ("n",)))]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in nodes.constants.items()
    ]
    model = helper.make_model(
        helper.make_graph([_node(it) for it in nodes.nodes], "head", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="graft",
    )
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def _info(output: GraphOutput) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(output.dtype))
    return helper.make_tensor_value_info(output.name, kind, output.shape)


def _node(node: Node) -> onnx.NodeProto:
    return helper.make_node(
        node.operator,
        node.inputs,
        [node.output],
        name=node.output,
        **{name: _attribute(value) for name, value in node.attributes.items()},
    )


def _attribute(value: Any) -> Any:
    return helper.np_dtype_to_tensor_dtype(np.dtype(value)) if isinstance(value, type) else value
