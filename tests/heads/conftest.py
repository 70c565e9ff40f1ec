from __future__ import annotations

import numpy as np
import pytest

from graft_server.heads import KernelMap, LinearMap, Member, Novelty
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.heads.regression import RegressionHead, Spread
from graft_server.heads.single_label import SingleLabelHead

DIMENSION, CLASSES, LANDMARKS = 24, 5, 40


def unit(rng: np.random.Generator, n: int, d: int = DIMENSION) -> np.ndarray:
    rows = rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def linear(rng: np.random.Generator, columns: int = CLASSES) -> LinearMap:
    weight = 4 * rng.standard_normal((DIMENSION, columns)).astype(np.float32)
    return LinearMap(weight, rng.standard_normal(columns).astype(np.float32))


def kernel(rng: np.random.Generator, columns: int = CLASSES) -> KernelMap:
    weight = rng.standard_normal((LANDMARKS, columns)).astype(np.float32) / 4
    bias = np.full(columns, 1 / columns, np.float32)
    return KernelMap(unit(rng, LANDMARKS).astype(np.float16), 1.0, weight, bias, 0.03)


@pytest.fixture(params=["linear", "kernel", "blend"])
def head(request: pytest.FixtureRequest) -> SingleLabelHead:
    rng = np.random.default_rng(7)
    members = {
        "linear": (Member(linear(rng), 0.8, 1.0),),
        "kernel": (Member(kernel(rng), 1.3, 1.0),),
        "blend": (Member(linear(rng), 0.8, 0.5), Member(kernel(rng), 1.3, 0.5)),
    }[request.param]
    return SingleLabelHead("test", "pooled", members, 0.9 if len(members) > 1 else 1.0, novelty_of(rng))


def novelty_of(rng: np.random.Generator) -> Novelty:
    knots = np.array([-9, -4, -3, -2.5, 0], np.float32)
    shares = np.array([0, 0.25, 0.5, 0.95, 1], np.float32)
    return Novelty(unit(rng, 12).astype(np.float16), 1.5, 0.2, knots, shares)


@pytest.fixture
def multi_label_head() -> MultiLabelHead:
    return multi_label("blend")


def multi_label(kind: str) -> MultiLabelHead:
    rng = np.random.default_rng(8)
    maps = {"linear": (linear(rng),), "kernel": (kernel(rng),), "blend": (linear(rng), kernel(rng))}[kind]
    thresholds = np.linspace(0.2, 0.9, CLASSES).astype(np.float32)
    return MultiLabelHead(
        "test", "pooled", maps, thresholds, at_least_one=kind == "linear", novelty=novelty_of(rng)
    )


@pytest.fixture
def regression_head() -> RegressionHead:
    return regression("spread")


def regression(kind: str) -> RegressionHead:
    rng = np.random.default_rng(9)
    maps = (linear(rng, 1), kernel(rng, 1)) if kind == "blend" else (linear(rng, 1),)
    spread = Spread(linear(rng, 1), 0.5, 3.0) if kind == "spread" else None
    return RegressionHead("test", "pooled", maps, 1.5, 2.5, spread, novelty_of(rng))


TASK_HEADS = [
    (make, kind)
    for make, kinds in (
        (multi_label, ("linear", "kernel", "blend")),
        (regression, ("linear", "spread", "blend")),
    )
    for kind in kinds
]


@pytest.fixture(params=TASK_HEADS, ids=[f"{make.__name__}-{kind}" for make, kind in TASK_HEADS])
def task_head(request: pytest.FixtureRequest) -> MultiLabelHead | RegressionHead:
    """A head of each task but the first, of each shape."""
    make, kind = request.param
    found: MultiLabelHead | RegressionHead = make(kind)
    return found
