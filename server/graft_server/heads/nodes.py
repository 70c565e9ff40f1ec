"""The nodes of a head's graph, as plain data: heads describe them without ONNX, which serving does not import.

`graph` makes an ONNX model of them. Each node has one output, and its name is the output's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.maps import LEAST_PROBABILITY, KernelMap, LinearMap, Map, Member
from graft_server.heads.novelty import Novelty

FEATURES, AXIS = "features", "classes_axis"
"""The graph's input, and the constant that names its last axis."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of ONNX."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    """A type such as `np.float32` stands for ONNX's number of that type."""


@dataclass(slots=True)
class Nodes:
    """Collects nodes and constants."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds a constant, and returns its name."""
        self.constants[name] = value
        return name

    def scalar(self, name: str, value: float) -> str:
        """Adds a float32, and returns its name."""
        return self.constant(name, np.array(value, np.float32))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        self.nodes.append(Node(operator, tuple(inputs), output, attributes))
        return output

    def scores(self, of: Map, name: str) -> str:
        """Adds a map's scores, (n, k)."""
        source = FEATURES if isinstance(of, LinearMap) else self._kernel(of, name)
        self.add("MatMul", [source, self.constant(f"{name}.weight", of.weight)], f"{name}.weighted")
        return self.add("Add", [f"{name}.weighted", self.constant(f"{name}.bias", of.bias)], f"{name}.scores")

    def summed(self, maps: tuple[Map, ...], name: str) -> str:
        """Adds the sum of the maps' scores."""
        scores = [self.scores(one, f"map{i}") for i, one in enumerate(maps)]
        return self.add("Sum", scores, name) if len(scores) > 1 else scores[0]

    def logits(self, member: Member, name: str) -> str:
        """Adds the logits of a member's map."""
        of = member.map
        scores = self.scores(of, name)
        if isinstance(of, LinearMap):
            return scores
        self.add("Div", [scores, self.scalar(f"{name}.softness", of.softness)], f"{name}.scaled_scores")
        self.add("Softplus", [f"{name}.scaled_scores"], f"{name}.softplus")
        least = self.scalar(f"{name}.least", LEAST_PROBABILITY)
        self.add("Max", [f"{name}.softplus", least], f"{name}.positive")
        return self.add("Log", [f"{name}.positive"], f"{name}.logits")

    def novelty(self, novelty: Novelty, logits: str | None) -> None:
        """Adds the novelty: the share at the first knot, plus the rise of each segment up to the strangeness."""
        familiar = ["nearness"]
        if logits is not None:
            self.add("ReduceMax", [logits, AXIS], "largest_logit", keepdims=1)
            self.add("Div", ["largest_logit", self.scalar("logit_scale", novelty.logit_scale)], "sureness")
            familiar = ["sureness", "nearness"]
        self.constant("anchors", novelty.anchors.T)
        self.add("Cast", ["anchors"], "wide_anchors", to=np.float32)
        self.add("MatMul", [FEATURES, "wide_anchors"], "similarities")
        self.add("ReduceMax", ["similarities", AXIS], "similarity", keepdims=1)
        self.add("Div", ["similarity", self.scalar("similarity_scale", novelty.similarity_scale)], "nearness")
        self.add("Sum", familiar, "familiarity")
        self.add("Neg", ["familiarity"], "strangeness")
        self.add("Sub", ["strangeness", self.constant("knots", novelty.knots[:-1])], "past")
        self.add("Div", ["past", self.constant("widths", np.diff(novelty.knots))], "ratios")
        self.add("Clip", ["ratios", self.scalar("zero", 0), self.scalar("one", 1)], "crossed")
        self.add("MatMul", ["crossed", self.constant("rises", np.diff(novelty.shares))], "risen")
        self.add("Add", ["risen", self.scalar("least_share", float(novelty.shares[0]))], "novelty")

    def _kernel(self, of: KernelMap, name: str) -> str:
        """Adds exp(2 gamma x.z - gamma |x|^2 - gamma |z|^2); landmarks stay float16 in the file."""
        landmarks = of.landmarks.astype(np.float32)
        self.constant(f"{name}.landmarks", of.landmarks.T)
        self.add("Cast", [f"{name}.landmarks"], f"{name}.wide_landmarks", to=np.float32)
        self.add("MatMul", [FEATURES, f"{name}.wide_landmarks"], f"{name}.products")
        twice = self.scalar(f"{name}.twice_gamma", 2 * of.gamma)
        self.add("Mul", [f"{name}.products", twice], f"{name}.scaled_products")
        norms = np.float32(of.gamma) * np.einsum("md,md->m", landmarks, landmarks)
        self.add("Sub", [f"{name}.scaled_products", self.constant(f"{name}.norms", norms)], f"{name}.shifted")
        self.add("ReduceSumSquare", [FEATURES, AXIS], f"{name}.squares", keepdims=1)
        self.add("Mul", [f"{name}.squares", self.scalar(f"{name}.gamma", of.gamma)], f"{name}.scaled_squares")
        self.add("Sub", [f"{name}.shifted", f"{name}.scaled_squares"], f"{name}.exponents")
        return self.add("Exp", [f"{name}.exponents"], f"{name}.kernel")
