"""Whether this tree serves and adapts as fast as another revision of it: both in turn, on one machine.

    python -m benchmarks.against REVISION [--pairs 10]

Each pair starts a server of either tree, in an order that alternates, and gives both the same work. Both drive the
encoder in the same way (`--measure-seconds 0`), so that what differs is the code. A ratio is the mean over the pairs,
with the 95% interval of Student's t on its logarithm: where the interval holds 1, no difference is seen.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy import stats

import graft
from benchmarks import load
from benchmarks.datasets import Texts, banking77, few_shot
from benchmarks.harness import hardware, save, server
from benchmarks.load import Load, predict_requests, write_requests

HERE = Path(__file__).resolve().parents[1]
MODEL = "banking"
MANY = 1_500
WORK = {
    "start to listening, s": "less",
    "616 examples, sent at once: first one sent to served, s": "less",
    f"{MANY:,} examples: first one sent to served, s": "less",
    "examples acknowledged durably, a second": "more",
    "1 text a request, 64 in flight: texts a second": "more",
    "16 texts a request, 8 in flight: texts a second": "more",
    "p50 of one text at a time, ms": "less",
    "resident memory of the serving process afterwards, MB": "less",
}
"""What is measured, and whether more or less of it is better."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("revision", help="what to compare with: a commit, a tag or a branch")
    parser.add_argument("--pairs", type=int, default=10, help="how many pairs (default: 10)")
    asked = parser.parse_args()
    data = banking77()
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as temporary:
        folder = Path(temporary)
        texts = [data.test[row] for row in np.random.default_rng(0).permutation(len(data.test))]
        requests = {
            size: write_requests(folder / str(size), predict_requests([MODEL], texts, size))
            for size in (1, 16)
        }
        with checked_out(asked.revision, folder / "tree") as other:
            trees = {"this": HERE, "other": other}
            for tree in trees.values():
                with server(*flags(folder / tree.name), tree=tree):
                    print(f"{tree}: its encoder is exported", flush=True)
            pairs: list[dict[str, Mapping[str, float]]] = []
            for n in range(asked.pairs):
                order = sorted(trees, reverse=bool(n % 2))
                pairs.append(
                    {it: measured(trees[it], data, requests, folder / trees[it].name) for it in order}
                )
                print(f"pair {n + 1} of {asked.pairs}: {pairs[-1]}", flush=True)
                if n:
                    write(asked.revision, pairs)


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """A working tree of a revision, for as long as the block lasts."""
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def flags(cache: Path) -> tuple[str, ...]:
    """What a server of either tree runs with; each has a cache of its own."""
    return "--measure-seconds", "0", "--cache", str(cache.with_suffix(".cache"))


def measured(tree: Path, data: Texts, requests: Mapping[int, Path], cache: Path) -> dict[str, float]:
    """What one server of a tree does with the work, in the order of WORK."""
    began = time.perf_counter()
    with server(*flags(cache), tree=tree) as running, graft.Client(running.target) as client:
        started = time.perf_counter() - began
        few, _ = _adapt(client, MODEL, data, few_shot(data.train_labels, 8, 0))
        rows = np.random.default_rng(0).permutation(len(data.train))[:MANY]
        many, acknowledged = _adapt(client, "many", data, rows)

        def run(size: int, in_flight: int, count: int) -> load.Answered:
            return load.run(Load(running.target, requests[size], size, count, in_flight))

        run(1, 64, 300)
        answers = [
            run(1, 64, 1_000).texts_per_s,
            run(16, 8, 95).texts_per_s,
            run(1, 1, 200).percentile(50),
        ]
        values = [started, few, many, acknowledged, *answers, running.resident_mb()]
    return dict(zip(WORK, values, strict=True))


def _adapt(client: graft.Client, model: str, data: Texts, rows: Sequence[int]) -> tuple[float, float]:
    """Seconds until a version is served, and how many examples a second were acknowledged."""
    examples = [(data.train[row], data.classes[data.train_labels[row]]) for row in rows]
    acknowledged: list[float] = []

    def note(progress: graft.AdaptProgress) -> None:
        if progress.acknowledged >= len(examples):
            acknowledged.append(time.perf_counter())

    began = time.perf_counter()
    client.adapt(model, examples, on_progress=note)
    client.predict(model, data.test[:1])
    return time.perf_counter() - began, len(examples) / (acknowledged[0] - began)


def write(revision: str, pairs: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Prints the ratios with their intervals, and keeps them in results/against.md."""
    known = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", revision], capture_output=True, text=True, check=True
    ).stdout.strip()
    machine = hardware()
    lines = [
        f"# This tree against {known}",
        "",
        ", ".join(f"{key}: {value}" for key, value in machine.items()),
        "",
        f"`python -m benchmarks.against {revision} --pairs {len(pairs)}`; each ratio is this tree over the other.",
        "",
        "| what | this, median | the other | ratio (95% interval) | better is |",
        "|---|---|---|---|---|",
    ]
    for what, better in WORK.items():
        this, other = (np.array([pair[it][what] for pair in pairs]) for it in ("this", "other"))
        low, ratio, high = interval(np.log(this / other))
        lines.append(
            f"| {what} | {np.median(this):.4g} | {np.median(other):.4g} | {ratio:.3f} ({low:.3f} to {high:.3f}) | "
            f"{better} |"
        )
    save("against", lines, {"hardware": machine, "against": known, "pairs": list(pairs)})
    print("\n".join(lines))


def interval(logarithms: np.ndarray) -> tuple[float, float, float]:
    """The 95% interval of a mean ratio, and the ratio in its middle, from the ratios' logarithms."""
    count = len(logarithms)
    mean = float(logarithms.mean())
    half = (
        float(stats.t.ppf(0.975, count - 1) * logarithms.std(ddof=1) / np.sqrt(count))
        if count > 1
        else np.inf
    )
    return float(np.exp(mean - half)), float(np.exp(mean)), float(np.exp(mean + half))


if __name__ == "__main__":
    main()
