from __future__ import annotations

import numpy as np
import pytest

from graft_server.heads import Head, KernelMap, LinearMap, Member, Novelty

DIMENSION, CLASSES, LANDMARKS = 24, 5, 40


def unit(rng: np.random.Generator, n: int, d: int = DIMENSION) -> np.ndarray:
    rows = rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def linear(rng: np.random.Generator) -> LinearMap:
    weight = 4 * rng.standard_normal((DIMENSION, CLASSES)).astype(np.float32)
    return LinearMap(weight, rng.standard_normal(CLASSES).astype(np.float32))


def kernel(rng: np.random.Generator) -> KernelMap:
    weight = rng.standard_normal((LANDMARKS, CLASSES)).astype(np.float32) / 4
    bias = np.full(CLASSES, 1 / CLASSES, np.float32)
    return KernelMap(unit(rng, LANDMARKS).astype(np.float16), 1.0, weight, bias, 0.03)


@pytest.fixture(params=["linear", "kernel", "blend"])
def head(request: pytest.FixtureRequest) -> Head:
    rng = np.random.default_rng(7)
    members = {
        "linear": (Member(linear(rng), 0.8, 1.0),),
        "kernel": (Member(kernel(rng), 1.3, 1.0),),
        "blend": (Member(linear(rng), 0.8, 0.5), Member(kernel(rng), 1.3, 0.5)),
    }[request.param]
    knots = np.array([-9, -4, -3, -2.5, 0], np.float32)
    shares = np.array([0, 0.25, 0.5, 0.95, 1], np.float32)
    novelty = Novelty(unit(rng, 12).astype(np.float16), 1.5, 0.2, knots, shares)
    return Head("test", "pooled", members, 0.9 if len(members) > 1 else 1.0, novelty)
