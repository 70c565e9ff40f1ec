"""Token sequences to the encoder graph's inputs: one row of tokens without padding, or rows that are padded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack(texts: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Packs n texts of together t tokens, the longest of l, for the graph of `backbones.torch.export`.

    Args:
        texts: At least one; each of shape (tokens,), at least one token.

    Returns:
        `input_ids` (t,), `position_ids` (t,), `rows` (n, l), `cells` (t,).
    """
    lengths = np.array([len(text) for text in texts])
    count, total, longest = len(texts), int(lengths.sum()), int(lengths.max())
    text_of_token = np.repeat(np.arange(count), lengths)
    positions = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    cells = text_of_token * longest + positions
    rows = np.full(count * longest, -1)
    rows[cells] = np.arange(total)
    return {
        "input_ids": np.concatenate(texts),
        "position_ids": positions,
        "rows": rows.reshape(count, longest),
        "cells": cells,
    }


def pad(texts: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Puts n texts, the longest of l tokens, side by side, for graphs that cannot read packed ones.

    Args:
        texts: At least one; each of shape (tokens,), at least one token.

    Returns:
        `input_ids` (n, l), 0 behind a text's end; `attention_mask` (n, l), 1 where there is a token.
    """
    lengths = np.array([len(text) for text in texts])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(texts)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


def cost(count: int, tokens: int, longest: int, dimension: int) -> float:
    """Returns the cost of a batch of packed texts, in tokens' worth of matrix products.

    A layer of a transformer spends 12 d² multiplications on a token, and attention 2 d on each pair of places;
    attention works on texts padded to the longest of the batch.
    """
    return tokens + count * longest * longest / (6 * dimension)


def padded_cost(count: int, longest: int, dimension: int) -> float:
    """Returns the cost of a batch of padded texts: every place costs as much as a token."""
    return cost(count, count * longest, longest, dimension)
