"""A head without the features of some examples that it was trained on.

Two parts of a head are features of examples, number for number: the landmarks of a kernel, and an anchor of the
novelty that has one member. Weights are sums over all examples and reveal none.

Removing landmarks removes their part of the function. The nearest function that the other landmarks span, in the
norm of the kernel's space, replaces it: the projection, in closed form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.heads.half import widened
from graft_server.heads.head import Head
from graft_server.heads.maps import KernelMap, Map, gaussian_kernel, kernel_among

SAME = 1e-5
"""Rows are the same features below this distance, 1 - cosine. Rounding to float16 moves a row by 1e-7 at most; the next
sentence but one is at 1e-2."""

Array = NDArray[np.float32]


def without(head: Head, erased: Array) -> Head | None:
    """Returns the head without features of erased examples, or None if it holds none of them.

    Args:
        head: The head.
        erased: shape (e, d), e >= 1, in the view that the head reads.
    """
    directions = _unit(erased)
    anchors = widened(head.novelty.anchors)
    own = _among(anchors, directions)
    maps = [_without(one, directions) for one in head.maps]
    if not own.any() and not any(maps):
        return None
    kept = anchors[~own] if not own.all() else np.zeros_like(anchors[:1])
    return head.changed(
        tuple(after or before for after, before in zip(maps, head.maps, strict=True)),
        replace(head.novelty, anchors=kept.astype(np.float16)),
    )


def coarsened(head: Head) -> Head:
    """Returns the head with each anchor joined to its nearest neighbour, so that none is one example's features.

    For heads whose features are not stored, so that anchors of an erased example cannot be identified.
    """
    anchors = widened(head.novelty.anchors)
    nearness = _unit(anchors) @ _unit(anchors).T
    free = np.ones(len(anchors), bool)
    joined: list[Array] = []
    for row in range(len(anchors)):
        if not free[row]:
            continue
        free[row] = False
        if free.any():
            other = int(np.where(free, nearness[row], -np.inf).argmax())
            free[other] = False
            joined.append(anchors[row] + anchors[other])
        elif joined:
            joined[-1] = joined[-1] + anchors[row]  # the last of an odd number of anchors
        else:
            joined.append(np.zeros_like(anchors[row]))
    directions = _unit(np.stack(joined))
    return head.changed(head.maps, replace(head.novelty, anchors=directions.astype(np.float16)))


def _without(of: Map, directions: Array) -> KernelMap | None:
    if not isinstance(of, KernelMap):
        return None
    landmarks = widened(of.landmarks)
    gone = _among(landmarks, directions)
    if not gone.any():
        return None
    if gone.all():
        return replace(of, landmarks=np.zeros_like(of.landmarks[:1]), weight=np.zeros_like(of.weight[:1]))
    kept = landmarks[~gone]
    across = gaussian_kernel(kept, landmarks[gone], of.gamma).astype(np.float64)
    moved = np.linalg.solve(kernel_among(kept, of.gamma), across @ of.weight[gone])
    return replace(of, landmarks=of.landmarks[~gone], weight=(of.weight[~gone] + moved).astype(np.float32))


def _among(rows: Array, directions: Array) -> NDArray[np.bool_]:
    """Returns whether each row has the direction of one of `directions`, shape (n,)."""
    among: NDArray[np.bool_] = (_unit(rows) @ directions.T).max(axis=1) > 1 - SAME
    return among


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
