"""What an evaluation takes for copies of training examples in published test sets: python -m benchmarks.trained_on.

No test example of these sets is meant to be a training example, so all that is left out is either a copy that the set's
makers overlooked, or a mistake; each is printed beside the training text that is nearest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.datasets import Texts, banking77, clinc150, sms_spam
from benchmarks.harness import Figure, at_most, write
from benchmarks.heads.features import Featured, featured
from benchmarks.heads.measure import VIEWS
from graft_server.domain.examples import Example, Input
from graft_server.domain.wording import wording_digest
from graft_server.serving.trained_on import NearCopies, TrainedOn, TrainedRows

SETS: tuple[Callable[[], Texts], ...] = (banking77, clinc150, sms_spam)
MOST_SHARE = 2.0
"""Of a published test set, in percent, that features alone may take for copies."""
NOTE = (
    "`found by wording`: equal but for case, spacing, punctuation and invisible characters. `by features`: near copies "
    "beside those; each is printed beside its training text, from which it differs in a word."
)
ENCODING_S = 0.004
"""Of a text on one core, about: what comparing is to be small beside."""


def main() -> None:
    figures = []
    for make in SETS:
        figures += _measured(featured(make()))
    write("trained_on", "Copies of training examples in published test sets", figures, (NOTE,))


def _measured(data: Featured) -> list[Figure]:
    train, test = ([Input(it) for it in texts] for texts in (data.texts.train, data.texts.test))
    rows = TrainedRows(
        tuple(it.digest() for it in train),
        tuple(map(wording_digest, train)),
        {view: data.train[view] for view in VIEWS},
        tuple((str(label),) for label in data.train_labels),
    )
    trained = TrainedOn(rows, frozenset(rows.digests), frozenset(rows.wordings) - {b""}, complete=True)
    began = time.process_time()
    known = trained.knows(test)
    near = NearCopies(rows)
    for place, value in enumerate(test):
        if not known[place]:
            example = Example(str(place), value, label=str(data.test_labels[place]))
            near.add(place, example, {view: data.test[view][place] for view in VIEWS})
    found = sorted(near.found())
    took_s = time.process_time() - began
    for place in found:
        nearest = int(
            np.argmax(data.train["pooled"].astype(np.float32) @ data.test["pooled"][place].astype(np.float32))
        )
        print(f"{data.texts.name}: {data.texts.test[place]!r} is near {data.texts.train[nearest]!r}")
    name, n = data.texts.name, len(test)
    return [
        Figure(f"{name}, {n:,} test texts: found by wording", sum(known), "texts"),
        at_most(f"{name}: by features, share of the test set", 100 * len(found) / n, MOST_SHARE, "%"),
        Figure(f"{name}: by features", len(found), "texts"),
        at_most(f"{name}: processor time, {len(train):,} training texts", took_s, 0.2 * n * ENCODING_S, "s"),
    ]


if __name__ == "__main__":
    main()
