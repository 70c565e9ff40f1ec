"""Contrastive tuning: inputs of one class are drawn together, and away from those of the others.

Every pair of a batch teaches something, so that a handful of examples a class make hundreds of comparisons, where a
loss on logits sees a handful of labels (Tunstall et al. 2022, "SetFit"; the loss is that of Khosla et al. 2020). There
is no head while it runs: heads come afterwards, on the tuned features.

Nothing here knows of a backbone: these are the loss, the batches, and how many of them it takes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

TEMPERATURE = 0.1
"""What cosines are divided by."""
CLASSES, EACH = 8, 4
"""A batch has at most this many classes, and of each as many examples, or all where there are fewer. With 8 of each, at
twice the cost, little is better: six kinds of questions 87.9 (86.6 with 4), six emotions 57.0 (56.5)."""
STEPS = 24
"""Steps of a training, whether there are 8 examples a class or 16."""
EPOCHS = 3
"""How often each example is seen at least, where many examples make this more than STEPS. With 64 a class, opinions of
films come to 74.0 in 24 steps and to 76.3 in 48, four sentiments to 52.4 and 58.8 (frozen 77.6 and 53.1)."""
RATE, RATED_WIDTH = 3e-4, 384
"""The learning rate of AdamW, and the width of features that it was measured with; wider ones get less in proportion.
Accuracy with 8 examples a class, two draws, at 1e-4, 2e-4 and 4e-4: six kinds of questions 87.9, 91.7, 92.9 (frozen
67.1), six emotions 54.4, 58.3, 61.1 (frozen 50.2)."""
LAYER_DECAY = 1.0
"""What the rate of a layer is of that of the layer above it."""
WARM_UP = 0.1
"""The share of the steps in which the rate rises; then it falls to 0."""
FLOOR = 0.5
"""The least share of the steps that is worth its time, where a time budget leaves no more."""
NAMES = True
"""Whether the names of the classes are members of them: six emotions 54.8 without and 57.0 with them, six kinds of
questions 87.6 and 87.9."""

NOTHING = -1e9
"""A logit that no softmax sees."""


def loss(features: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """The supervised contrastive loss of a batch (Khosla et al. 2020, equation 2): the mean over its examples.

    Of an example, it is the mean over the others of its class of the log-loss of telling that one among all others of
    the batch, by cosine. An example that is alone in its class is among the others only; a batch of such, or of one
    class, has nothing to teach, and its loss is 0.

    Args:
        features: shape (b, d), rows of length 1.
        labels: shape (b,), integers.
        weights: shape (b,), how much each counts; None: all the same.

    Returns:
        Shape ().
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=features.device)
    logits = (features @ features.T / TEMPERATURE).masked_fill(itself, NOTHING)
    surprise = torch.logsumexp(logits, dim=1, keepdim=True) - logits
    alike = (labels[:, None] == labels[None]) & ~itself
    others = alike.sum(dim=1)
    losses = surprise.masked_fill(~alike, 0.0).sum(dim=1) / others.clamp(min=1)
    counted = (others > 0) & (others < len(labels) - 1)
    shares = counted.to(losses.dtype) if weights is None else weights.to(losses.dtype) * counted
    return (losses * shares).sum() / shares.sum().clamp(min=1e-12)


def rate_of(dimension: int) -> float:
    """The learning rate for a backbone whose features have some dimension."""
    return RATE * RATED_WIDTH / dimension


def steps_of(examples: int, classes: int) -> int:
    """How many steps a training of some examples takes.

    Args:
        examples: How many there are.
        classes: How many classes these have.
    """
    batch = min(classes, CLASSES) * EACH
    return max(STEPS, math.ceil(EPOCHS * examples / batch))


def named(text: str) -> str:
    """What stands for the name of a class: the text of the name, and of its description if there is one."""
    return text


def batches(
    labels: NDArray[np.int32],
    rows: NDArray[np.int64],
    *,
    steps: int,
    seed: int,
    names: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """The batches of a training: the same classes equally often, and the examples of a class equally often.

    Classes, and examples of each class, are dealt like cards: all once in a random order, then all again. So rare
    classes are seen as often as frequent ones, and no example twice in one batch.

    Args:
        labels: shape (n,): the class of each row.
        rows: shape (m,): the rows to train on.
        steps: How many batches.
        seed: What chance is derived from.
        names: shape (k,): the row that holds the name of each class, which is dealt like its examples; None: there are
            none.
    """
    rng = np.random.default_rng(seed)
    own = labels[rows]
    present = np.unique(own)
    members = {int(it): rows[own == it] for it in present}
    if names is not None:
        members = {it: np.append(of, names[it]) for it, of in members.items()}
    of_class = {it: _Deck(of, rng) for it, of in members.items()}
    classes = _Deck(present.astype(np.int64), rng)
    made = []
    for _ in range(steps):
        drawn = [int(it) for it in classes.draw(CLASSES)]
        made.append(np.concatenate([of_class[it].draw(EACH) for it in drawn]))
    return made


class _Deck:
    """Cards that are dealt in a random order, all before any comes again; a hand has none twice."""

    def __init__(self, cards: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._cards, self._rng = cards, rng
        self._left: list[int] = []

    def draw(self, most: int) -> NDArray[np.int64]:
        """At most so many cards, all of them if there are fewer."""
        size = min(most, len(self._cards))
        hand = self._left[:size]
        self._left = self._left[size:]
        if len(hand) < size:
            order = [int(it) for it in self._rng.permutation(self._cards)]
            more = [it for it in order if it not in hand][: size - len(hand)]
            self._left = [it for it in order if it not in more]
            hand += more
        return np.array(hand, np.int64)
