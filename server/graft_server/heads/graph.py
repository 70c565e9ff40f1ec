"""A head as an ONNX graph. Imports onnx, so workers alone import it.

From `features` (n, d) float32 to `novelty` (n,) and what the task answers with, node for node what the heads
compute: `probabilities` (n, k); for several labels also `selected` (n, k) bool and `thresholds` (k,); for a
regression `value`, `low` and `high` (n,). Temperature, thresholds and the novelty's table are inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft_server.heads.codec import AnyHead
from graft_server.heads.head import LEAST_PROBABILITY, Head, KernelMap, LinearMap, Map, Member
from graft_server.heads.multilabel import MultiLabelHead
from graft_server.heads.novelty import Novelty
from graft_server.heads.regression import RegressionHead

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


def to_onnx(head: AnyHead) -> bytes:
    """The head as a serialised, checked ONNX model."""
    graph = _Graph()
    graph.constant("classes_axis", np.array([-1]))
    match head:
        case MultiLabelHead():
            outputs = _multi_label(graph, head)
        case RegressionHead():
            outputs = _regression(graph, head)
        case _:
            outputs = _single_label(graph, head)
    return _model(graph, head.dimension, [*outputs, _output("novelty", "n")])


def _output(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(graph: _Graph, dimension: int, outputs: list[onnx.ValueInfoProto]) -> bytes:
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", dimension])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "head", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="graft",
    )
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def _single_label(graph: _Graph, head: Head) -> list[onnx.ValueInfoProto]:
    logits = [_logits(graph, member, f"member{i}") for i, member in enumerate(head.members)]
    _probabilities(graph, head, logits)
    _novelty(graph, head.novelty, logits[0])
    return [_output("probabilities", "n", head.classes)]


def _multi_label(graph: _Graph, head: MultiLabelHead) -> list[onnx.ValueInfoProto]:
    graph.add("Sigmoid", [_summed(graph, head.maps, "logits")], "probabilities")
    graph.add("Identity", [graph.constant("each_threshold", head.thresholds)], "thresholds")
    reached = "reached" if head.at_least_one else "selected"
    graph.add("GreaterOrEqual", ["probabilities", "each_threshold"], reached)
    if head.at_least_one:
        _or_best(graph, head.classes)
    _novelty(graph, head.novelty, None)
    return [
        _output("probabilities", "n", head.classes),
        _output("selected", "n", head.classes, kind=TensorProto.BOOL),
        _output("thresholds", head.classes),
    ]


def _or_best(graph: _Graph, classes: int) -> None:
    """`selected` is `reached`, and the best label, the first of equal ones, where nothing is reached."""
    graph.add("Cast", ["reached"], "reached_numbers", to=TensorProto.FLOAT)
    graph.add("ReduceMax", ["reached_numbers", "classes_axis"], "any_reached", keepdims=1)
    graph.add("Equal", ["any_reached", graph.scalar("none_reached", 0)], "none")
    graph.add("ArgMax", ["probabilities"], "best", axis=-1, keepdims=1)
    graph.add("Equal", ["best", graph.constant("columns", np.arange(classes))], "is_best")
    graph.add("And", ["none", "is_best"], "best_instead")
    graph.add("Or", ["reached", "best_instead"], "selected")


def _regression(graph: _Graph, head: RegressionHead) -> list[onnx.ValueInfoProto]:
    values = _summed(graph, head.maps, "values")
    graph.add("Squeeze", [values, "classes_axis"], "value")
    below, above = graph.scalar("below", head.below), graph.scalar("above", head.above)
    if head.spread is not None:
        scores = _scores(graph, head.spread.map, "spread")
        graph.add("Squeeze", [scores, "classes_axis"], "spread.free")
        bounds = [
            graph.scalar("spread.least", head.spread.least),
            graph.scalar("spread.most", head.spread.most),
        ]
        graph.add("Clip", ["spread.free", *bounds], "spread")
        below = graph.add("Mul", ["spread", below], "far_below")
        above = graph.add("Mul", ["spread", above], "far_above")
    graph.add("Sub", ["value", below], "low")
    graph.add("Add", ["value", above], "high")
    _novelty(graph, head.novelty, None)
    return [_output(name, "n") for name in ("value", "low", "high")]


def _summed(graph: _Graph, maps: tuple[Map, ...], name: str) -> str:
    """The sum of the maps' scores."""
    scores = [_scores(graph, one, f"map{i}") for i, one in enumerate(maps)]
    return graph.add("Sum", scores, name) if len(scores) > 1 else scores[0]


def _scores(graph: _Graph, of: Map, name: str) -> str:
    source = "features" if isinstance(of, LinearMap) else _kernel(graph, of, name)
    graph.add("MatMul", [source, graph.constant(f"{name}.weight", of.weight)], f"{name}.weighted")
    return graph.add("Add", [f"{name}.weighted", graph.constant(f"{name}.bias", of.bias)], f"{name}.scores")


def _logits(graph: _Graph, member: Member, name: str) -> str:
    of = member.map
    scores = _scores(graph, of, name)
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


def _novelty(graph: _Graph, novelty: Novelty, logits: str | None) -> None:
    """Interpolates in the table: the share at the first knot, plus each segment's rise as far as it was crossed."""
    familiar = ["nearness"]
    if logits is not None:
        graph.add("ReduceMax", [logits, "classes_axis"], "largest_logit", keepdims=1)
        graph.add("Div", ["largest_logit", graph.scalar("logit_scale", novelty.logit_scale)], "sureness")
        familiar = ["sureness", "nearness"]
    graph.constant("anchors", novelty.anchors.T)
    graph.add("Cast", ["anchors"], "wide_anchors", to=TensorProto.FLOAT)
    graph.add("MatMul", ["features", "wide_anchors"], "similarities")
    graph.add("ReduceMax", ["similarities", "classes_axis"], "similarity", keepdims=1)
    graph.add("Div", ["similarity", graph.scalar("similarity_scale", novelty.similarity_scale)], "nearness")
    graph.add("Sum", familiar, "familiarity")
    graph.add("Neg", ["familiarity"], "strangeness")
    graph.add("Sub", ["strangeness", graph.constant("knots", novelty.knots[:-1])], "past")
    graph.add("Div", ["past", graph.constant("widths", np.diff(novelty.knots))], "ratios")
    graph.add("Clip", ["ratios", graph.scalar("zero", 0), graph.scalar("one", 1)], "crossed")
    graph.add("MatMul", ["crossed", graph.constant("rises", np.diff(novelty.shares))], "risen")
    graph.add("Add", ["risen", graph.scalar("least_share", float(novelty.shares[0]))], "novelty")
