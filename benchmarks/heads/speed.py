"""What a selection costs, in a worker process as the server runs it.

python -m benchmarks.heads.speed [--runs 3] [--before TREE [--pairs 30]]

Wall time, processor time, and the most memory that the process had beyond what it had when the job began, its
modules imported, with all views in it as float16: the features' own size. Beside, in the same run, one fit of
scikit-learn's LogisticRegression(C=10) on the pooled features, in a process of its own. With --before, the
processor time of the selection is also compared with that of an earlier state, whose checkout is TREE, in
alternating pairs. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.against import interval
from benchmarks.datasets import Texts, banking77, clinc150, few_shot
from benchmarks.harness import save
from benchmarks.heads.features import Featured, featured
from benchmarks.heads.measure import VIEWS, hardware
from graft_server.jobs.job import JobType, OnProgress, Place, unwatched
from graft_server.jobs.local.pool import LocalJobs
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.steps import Steps
from graft_server.training.tasks.single_label.selection import select_single_label

SETS: tuple[tuple[Callable[[], Texts], int, float], ...] = ((banking77, 16, 3.0), (clinc150, 0, 25.0))
"""The data, examples a class (0: all), and seconds that selection may take."""
FREE_MB = 300
"""Memory that may be had besides three times the features' own size."""
MIB = 1 << 20
NOTHING = JobType("benchmarks.heads.speed:nothing", str, dict[str, float])
SELECTION = JobType("benchmarks.heads.speed:selection", str, dict[str, float])
REFERENCE = JobType("benchmarks.heads.speed:reference", str, dict[str, float])
"""Jobs on the file of a training set."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is given (default: 3)")
    parser.add_argument("--before", type=Path, metavar="TREE", help="a checkout of an earlier state")
    parser.add_argument(
        "--pairs", type=int, default=30, help="draws, on which both states run in turn (default: 30)"
    )
    parser.add_argument("--select", metavar="FILE", help="print the processor time of one selection alone")
    options = parser.parse_args()
    if options.select:
        train = _load(options.select)
        start = time.process_time()
        select_single_label(train, seed=0)
        print(time.process_time() - start)
        return
    asyncio.run(_measure(options.runs, options.before, options.pairs))


async def _measure(runs: int, earlier: Path | None, pairs: int) -> None:
    cells = []
    for make, size, seconds in SETS:
        data = featured(make())
        rows = _draw(data, size, 0)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "set.npz"
            _save(path, data, rows)
            found = [await _run(SELECTION, path) for _ in range(runs)]
            reference = await _run(REFERENCE, path)
            ratio = _over(earlier, path, data, size, pairs) if earlier else None
        features_mb = len(rows) * sum(data.train[view].shape[1] for view in VIEWS) * 2 / MIB
        cells.append(
            {
                "set": f"{len(rows):,} × {len(data.texts.classes)}",
                "examples": len(rows),
                **{key: float(np.median([one[key] for one in found])) for key in found[0]},
                "reference": reference["wall_s"],
                "wall_s_allowed": seconds,
                "peak_mb_allowed": 3 * features_mb + FREE_MB,
                "over_earlier": ratio,
            }
        )
        _write(cells)


def _over(earlier: Path, path: Path, data: Featured, size: int, pairs: int) -> dict[str, Any]:
    """The processor time of a selection over that of an earlier state.

    Each pair has a draw of its own: which view a selection takes hangs on the draw, and one view costs twice another.
    """
    here = Path(__file__).resolve().parents[2]
    times: dict[Path, list[float]] = {here: [], earlier.resolve(): []}
    for n in range(pairs):
        _save(path, data, _draw(data, size, n))
        for tree in list(times)[:: 1 if n % 2 else -1]:
            ran = subprocess.run(
                [sys.executable, "-m", "benchmarks.heads.speed", "--select", str(path)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tree / "server"), str(here)])},
            )
            times[tree].append(float(ran.stdout))
    now, before = times.values()
    low, ratio, high = interval(np.log(np.array(now) / np.array(before)))
    return {"ratio": ratio, "low": low, "high": high, "cpu_s": now, "earlier_cpu_s": before}


def _draw(data: Featured, size: int, seed: int) -> np.ndarray:
    """Rows of the training set: so many of each class, or (0) all of them in some order."""
    labels = data.texts.train_labels
    return few_shot(labels, size, seed) if size else np.random.default_rng(seed).permutation(len(labels))


async def _run(what: JobType[str, dict[str, float]], path: Path) -> dict[str, float]:
    """A job in a fresh worker, its modules imported ahead as the server has them."""
    jobs = LocalJobs(1, preload=("benchmarks.heads.speed",))
    await jobs.start()
    try:
        # The first job waits for the imports; the second is measured.
        await jobs.run(NOTHING.job(""), unwatched)
        found = await jobs.run(what.job(str(path)), unwatched)
    finally:
        await jobs.close()
    return found


@NOTHING.done_by
def nothing(_path: str, _place: Place, _progress: OnProgress) -> dict[str, float]:
    """The job that does nothing."""
    return {}


@SELECTION.done_by
def selection(path: str, _place: Place, progress: OnProgress) -> dict[str, float]:
    """The job that reads a training set and selects a head from it."""
    before = _memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
    train = _load(path)
    wall, cpu = time.perf_counter(), time.process_time()
    select_single_label(train, seed=0, steps=Steps(progress))
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": _memory_mb("VmHWM") - before,
    }


@REFERENCE.done_by
def reference(path: str, _place: Place, _progress: OnProgress) -> dict[str, float]:
    """The job that fits scikit-learn's logistic regression."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (the other jobs do without)

    train = _load(path)
    features = train.features["pooled"].astype(np.float32)
    wall = time.perf_counter()
    LogisticRegression(C=10, max_iter=1000).fit(features, train.labels)
    return {"wall_s": time.perf_counter() - wall}


def _memory_mb(name: str) -> float:
    """In MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def _save(path: Path, data: Featured, rows: np.ndarray) -> None:
    views = {f"train-{view}": data.train[view][rows] for view in VIEWS}
    names = {f"names-{view}": data.names[view] for view in VIEWS}
    digests = [hashlib.blake2b(data.texts.train[row].encode(), digest_size=16).digest() for row in rows]
    packed = np.frombuffer(b"".join(digests), np.uint8).reshape(len(rows), 16)
    np.savez(path, labels=data.texts.train_labels[rows], digests=packed, **views, **names)


def _load(path: str) -> ClassifiedSet:
    with np.load(path) as arrays:
        labels = arrays["labels"]
        n, k = len(labels), int(labels.max()) + 1
        return ClassifiedSet(
            classes=tuple(map(str, range(k))),
            descriptions=("",) * k,
            labels=labels,
            weights=np.ones(n),
            validation=np.zeros(n, bool),
            groups=np.arange(n),
            ids=tuple(map(str, range(n))),
            origins=tuple(("", i) for i in range(n)),
            input_digests=tuple(map(bytes, arrays["digests"])),
            features={view: arrays[f"train-{view}"] for view in VIEWS},
            label_features={view: arrays[f"names-{view}"] for view in VIEWS},
        )


def _write(cells: list[dict[str, Any]]) -> None:
    lines = [
        "# What a selection costs",
        "",
        f"Measured on {hardware()}.",
        "In a worker process; medians. Memory is the most that the process had beyond what it had before it read the",
        "examples. The reference is one fit of scikit-learn's LogisticRegression(C=10) on the pooled features in the",
        "same run. The last column is the processor time over that of an earlier state, in alternating pairs of a",
        "draw each, with the 95% interval. `python -m benchmarks.heads.speed --before TREE`",
        "",
        "| examples × classes | seconds (at most) | times the reference | CPU s | peak MiB (at most) | over before |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {cell['set']} | **{cell['wall_s']:.2f}** ({cell['wall_s_allowed']:.0f}) "
        f"| {cell['wall_s'] / cell['reference']:.1f} | {cell['cpu_s']:.2f} "
        f"| **{cell['peak_mb']:.0f}** ({cell['peak_mb_allowed']:.0f}) | {_ratio(cell['over_earlier'])} |"
        for cell in cells
    ]
    save("heads-speed", lines, cells)
    print("\n".join(lines), flush=True)


def _ratio(over: dict[str, Any] | None) -> str:
    return f"{over['ratio']:.2f} ({over['low']:.2f} to {over['high']:.2f})" if over else ""


if __name__ == "__main__":
    main()
