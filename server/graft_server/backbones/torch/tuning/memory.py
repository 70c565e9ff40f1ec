"""A step in parts that fit into memory: smaller ones from the moment on that memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.torch.tuning.checkpoint import TrainingState
from graft_server.backbones.torch.tuning.device import is_out_of_memory

_log = logging.getLogger(__name__)


def within_memory(
    state: TrainingState,
    lengths: NDArray[np.int64],
    batch: NDArray[np.int64],
    step: Callable[[], float],
    model: torch.nn.Module,
) -> float:
    """Takes a step, and again with parts of half the size for as long as memory does not suffice.

    Args:
        state: How many tokens a part has at most, and how often that was halved; changed here.
        lengths: shape (n,): of all examples.
        batch: The rows of the step.
        step: Adds up gradients, in such parts, and returns the loss.
        model: Whose gradients are dropped before the next try.
    """
    while True:
        try:
            return step()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or state.tokens_at_once <= lengths.max():
                raise
            # What a batch has at most is less than the bound, as long as texts are short.
            size = min(state.tokens_at_once, int(lengths[batch].sum()))
            state.tokens_at_once = max(size // 2, int(lengths.max()))
            state.halved += 1
            _log.warning("out of memory with %d tokens at once: %d from here on", size, state.tokens_at_once)
            model.zero_grad(set_to_none=True)
