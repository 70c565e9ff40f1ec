"""A head as an ONNX graph. Imports onnx, so workers alone import it.

From `features` (n, d) float32 to `probabilities` (n, k) and `novelty` (n,) float32, node for node what
`head` and `novelty` compute; the temperature and the novelty's table are inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft_server.heads.head import Head, KernelHead, LinearHead
from graft_server.heads.novelty import Novelty

OPSET = 18
IR_VERSION = 9
"""The IR of opset 18's time: runtimes from 2023 on read it."""


class _Graph:
    """Nodes and constants being collected."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output


def to_onnx(head: Head) -> bytes:
    """The head as a serialised, checked ONNX model."""
    graph = _Graph()
    match head:
        case LinearHead():
            logits = _linear(graph, "features", head.weight, head.bias)
        case KernelHead():
            logits = _linear(graph, _kernel(graph, head), head.weight, head.bias)
        case _:
            raise TypeError(f"{type(head).__name__} has no graph")
    graph.add("Div", [logits, graph.scalar("temperature", head.temperature)], "tempered")
    graph.add("Softmax", ["tempered"], "probabilities", axis=-1)
    _novelty(graph, head.novelty, logits)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "head",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", head.dimension])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", head.classes]),
                helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="graft",
    )
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def _linear(graph: _Graph, source: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
    graph.add("MatMul", [source, graph.constant("weight", weight)], "weighted")
    return graph.add("Add", ["weighted", graph.constant("bias", bias)], "logits")


def _kernel(graph: _Graph, head: KernelHead) -> str:
    """exp(2 gamma x.z - gamma |x|^2 - gamma |z|^2); landmarks stay float16 in the file."""
    landmarks = head.landmarks.astype(np.float32)
    graph.constant("landmarks_transposed", head.landmarks.T)
    graph.add("Cast", ["landmarks_transposed"], "landmarks", to=TensorProto.FLOAT)
    graph.add("MatMul", ["features", "landmarks"], "products")
    graph.add("Mul", ["products", graph.scalar("twice_gamma", 2 * head.gamma)], "scaled")
    norms = np.float32(head.gamma) * np.einsum("md,md->m", landmarks, landmarks)
    graph.add("Sub", ["scaled", graph.constant("landmark_norms", norms)], "shifted")
    graph.add(
        "ReduceSumSquare", ["features", graph.constant("last_axis", np.array([-1]))], "norms", keepdims=1
    )
    graph.add("Mul", ["norms", graph.scalar("gamma", head.gamma)], "scaled_norms")
    graph.add("Sub", ["shifted", "scaled_norms"], "exponents")
    return graph.add("Exp", ["exponents"], "kernel")


def _novelty(graph: _Graph, novelty: Novelty, logits: str) -> None:
    """The share at the first knot, plus each segment's rise as far as it was crossed."""
    graph.constant("classes_axis", np.array([-1]))
    graph.add("ReduceMax", [logits, "classes_axis"], "best", keepdims=1)
    graph.add("Neg", ["best"], "strangeness")
    graph.add("Sub", ["strangeness", graph.constant("knots", novelty.knots[:-1])], "past")
    graph.add("Div", ["past", graph.constant("widths", np.diff(novelty.knots))], "ratios")
    graph.add("Clip", ["ratios", graph.scalar("zero", 0), graph.scalar("one", 1)], "crossed")
    graph.add("MatMul", ["crossed", graph.constant("rises", np.diff(novelty.shares))], "risen")
    graph.add("Add", ["risen", graph.scalar("least", float(novelty.shares[0]))], "novelty")
