"""The one loop that trains these backbones, in pre-training and from scratch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Batches = Callable[[], Iterator[tuple[Any, torch.Tensor]]]
"""An epoch: what the classifier reads, and what its loss is measured against."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the classifier's outputs."""


def fit(
    classifier: torch.nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    steps: int,
    epochs: int,
    rate: float,
    state: Path | None = None,
) -> None:
    """Trains with AdamW and a one-cycle schedule; `steps` batches are an epoch.

    What was cut off goes on from the last whole epoch, if there is a file for its `state`; it then also tells of its
    progress.
    """
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps * epochs)
    parts = {"classifier": classifier, "optimiser": optimiser, "schedule": schedule}
    begin = 0
    if state is not None and state.is_file():
        saved = torch.load(state, weights_only=True)
        begin = saved.pop("epoch")
        for name, content in saved.items():
            parts[name].load_state_dict(content)
    classifier.train()
    for epoch in range(begin, epochs):
        total, began = 0.0, time.monotonic()
        for values, answers in batches():
            found = loss(classifier(values), answers)
            optimiser.zero_grad()
            found.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += found.item()
        if state is not None:
            took = f"{time.monotonic() - began:.0f} s"
            print(
                f"epoch {epoch + 1} of {epochs}: loss {total / steps:.3f}, {took}",
                file=sys.stderr,
                flush=True,
            )
            new = state.with_suffix(".new")
            torch.save({name: it.state_dict() for name, it in parts.items()} | {"epoch": epoch + 1}, new)
            new.replace(state)
    if state is not None:
        state.unlink()
    classifier.eval()


def contrast(embeddings: torch.Tensor, same: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss (Khosla 2020): what is the same shall be nearer than anything else.

    Args:
        embeddings: Shape (n, d).
        same: Shape (n,): equal numbers are the same thing; each comes at least twice.
        temperature: Of the softmax over cosines.
    """
    unit = torch.nn.functional.normalize(embeddings)
    itself = torch.eye(len(unit), dtype=torch.bool)
    logs = torch.log_softmax((unit @ unit.T / temperature).masked_fill(itself, -1e9), 1)
    alike = ((same[:, None] == same[None]) & ~itself).to(logs.dtype)
    return -((logs * alike).sum(1) / alike.sum(1)).mean()
