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

from graft_server.heads.head import LEAST_PROBABILITY, Head, KernelMap, LinearMap, Member
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
    graph.constant("classes_axis", np.array([-1]))
    logits = [_logits(graph, member, f"member{i}") for i, member in enumerate(head.members)]
    _probabilities(graph, head, logits)
    _novelty(graph, head.novelty, logits[0])
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


def _logits(graph: _Graph, member: Member, name: str) -> str:
    of = member.map
    source = "features" if isinstance(of, LinearMap) else _kernel(graph, of, name)
    graph.add("MatMul", [source, graph.constant(f"{name}.weight", of.weight)], f"{name}.weighted")
    scores = graph.add("Add", [f"{name}.weighted", graph.constant(f"{name}.bias", of.bias)], f"{name}.scores")
    if isinstance(of, LinearMap):
        return scores
    graph.add("Div", [scores, graph.scalar(f"{name}.softness", of.softness)], f"{name}.scaled_scores")
    graph.add("Softplus", [f"{name}.scaled_scores"], f"{name}.softplus")
    least = graph.scalar(f"{name}.least", LEAST_PROBABILITY)
    graph.add("Max", [f"{name}.softplus", least], f"{name}.positive")
    return graph.add("Log", [f"{name}.positive"], f"{name}.logits")


def _kernel(graph: _Graph, of: KernelMap, name: str) -> str:
    """exp(2 gamma x.z - gamma |x|^2 - gamma |z|^2); landmarks stay float16 in the file."""
    landmarks = of.landmarks.astype(np.float32)
    graph.constant(f"{name}.landmarks", of.landmarks.T)
    graph.add("Cast", [f"{name}.landmarks"], f"{name}.wide_landmarks", to=TensorProto.FLOAT)
    graph.add("MatMul", ["features", f"{name}.wide_landmarks"], f"{name}.products")
    twice = graph.scalar(f"{name}.twice_gamma", 2 * of.gamma)
    graph.add("Mul", [f"{name}.products", twice], f"{name}.scaled_products")
    norms = np.float32(of.gamma) * np.einsum("md,md->m", landmarks, landmarks)
    graph.add("Sub", [f"{name}.scaled_products", graph.constant(f"{name}.norms", norms)], f"{name}.shifted")
    graph.add("ReduceSumSquare", ["features", "classes_axis"], f"{name}.squares", keepdims=1)
    graph.add("Mul", [f"{name}.squares", graph.scalar(f"{name}.gamma", of.gamma)], f"{name}.scaled_squares")
    graph.add("Sub", [f"{name}.shifted", f"{name}.scaled_squares"], f"{name}.exponents")
    return graph.add("Exp", [f"{name}.exponents"], f"{name}.kernel")


def _probabilities(graph: _Graph, head: Head, logits: list[str]) -> None:
    alone = len(logits) == 1
    shared = []
    for i, (member, name) in enumerate(zip(head.members, logits, strict=True)):
        temperature = graph.scalar(f"member{i}.temperature", member.temperature)
        graph.add("Div", [name, temperature], f"member{i}.tempered")
        own = "probabilities" if alone else f"member{i}.probabilities"
        graph.add("Softmax", [f"member{i}.tempered"], own, axis=-1)
        if not alone:
            share = graph.scalar(f"member{i}.share", member.share)
            shared.append(graph.add("Mul", [own, share], f"member{i}.shared"))
    if alone:
        return
    graph.add("Sum", shared, "mean")
    graph.add("Max", ["mean", graph.scalar("least_probability", LEAST_PROBABILITY)], "positive_mean")
    graph.add("Log", ["positive_mean"], "log_mean")
    graph.add("Div", ["log_mean", graph.scalar("temperature", head.temperature)], "tempered")
    graph.add("Softmax", ["tempered"], "probabilities", axis=-1)


def _novelty(graph: _Graph, novelty: Novelty, logits: str) -> None:
    """Interpolates in the table: the share at the first knot, plus each segment's rise as far as it was crossed."""
    graph.add("ReduceMax", [logits, "classes_axis"], "largest_logit", keepdims=1)
    graph.add("Div", ["largest_logit", graph.scalar("logit_scale", novelty.logit_scale)], "sureness")
    graph.constant("anchors", novelty.anchors.T)
    graph.add("Cast", ["anchors"], "wide_anchors", to=TensorProto.FLOAT)
    graph.add("MatMul", ["features", "wide_anchors"], "similarities")
    graph.add("ReduceMax", ["similarities", "classes_axis"], "similarity", keepdims=1)
    graph.add("Div", ["similarity", graph.scalar("similarity_scale", novelty.similarity_scale)], "nearness")
    graph.add("Sum", ["sureness", "nearness"], "familiarity")
    graph.add("Neg", ["familiarity"], "strangeness")
    graph.add("Sub", ["strangeness", graph.constant("knots", novelty.knots[:-1])], "past")
    graph.add("Div", ["past", graph.constant("widths", np.diff(novelty.knots))], "ratios")
    graph.add("Clip", ["ratios", graph.scalar("zero", 0), graph.scalar("one", 1)], "crossed")
    graph.add("MatMul", ["crossed", graph.constant("rises", np.diff(novelty.shares))], "risen")
    graph.add("Add", ["risen", graph.scalar("least_share", float(novelty.shares[0]))], "novelty")
