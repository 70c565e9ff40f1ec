"""What a hundred more labels bring, on the sets on which tuning is measured.

    python -m benchmarks.fewshot.labels

The same rows as few-shot draws, logistic regression on the frozen backbone's features, once with 8 examples a class and
once with a hundred more, dealt to the classes evenly.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from benchmarks.fewshot.sets import NOT_TOPIC, Set, UnavailableError, draw, features, load
from benchmarks.harness import hardware, save
from graft_server.training.solvers import logistic

FEW, MORE = 8, 100
DRAWS = 5
STRENGTH = 30.0
"""Of the logistic regression, for features of norm 1: that of the reports' learning curves."""


def accuracy(data: Set, per_class: int, seed: int) -> float:
    """On the test rows, of a head trained on a draw."""
    train, test = (it.astype(np.float32) for it in features(data))
    rows = draw(data, per_class, seed)
    axes = logistic.principal_axes(train[rows])
    weights = np.ones((1, len(rows)), np.float32)
    found = logistic.fit(
        axes, data.labels[rows], weights, len(data.label_names), strength=STRENGTH, start=None
    )
    logits = (test - axes.centre) @ axes.rotation @ found.weight[0] + found.bias[0]
    return float((logits.argmax(axis=1) == data.test_labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(NOT_TOPIC), choices=NOT_TOPIC)
    lines = [
        "# What a hundred more labels bring",
        "",
        f"`python -m benchmarks.fewshot.labels` measures it: {DRAWS} draws, logistic regression on frozen features,",
        f"accuracy on the test rows; {hardware()['date']}.",
        "",
        f"| set | classes | {FEW} a class | {MORE} labels more | gain, points |",
        "|---|---|---|---|---|",
    ]
    found = []
    for name in parser.parse_args().sets:
        try:
            data = load(name)
        except UnavailableError as error:
            print(f"{name}: left out: {error}")
            continue
        classes = len(data.label_names)
        more = FEW + round(MORE / classes)
        few, many = (statistics.mean(accuracy(data, it, seed) for seed in range(DRAWS)) for it in (FEW, more))
        lines.append(f"| {name} | {classes} | {few:.1%} | {many:.1%} | {100 * (many - few):+.1f} |")
        print(lines[-1], flush=True)
        found.append({"set": name, "classes": classes, "few": few, "more": more, "many": many})
    save("fewshot-labels", lines, found)


if __name__ == "__main__":
    main()
