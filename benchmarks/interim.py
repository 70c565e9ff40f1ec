"""The interim head's calibration and novelty, after few examples, and what an example costs it.

python -m benchmarks.interim --images FOLDER [--before TREE] [--draws 10] [--five]

FOLDER has the ResNet that encodes pictures, TREE is a checkout of an earlier state, which is measured beside this one.
The learner of the server runs in this process, on features that are computed once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.datasets import DATA, Texts, banking77, clinc150, goemotions_single, sms_spam
from benchmarks.harness import hardware, save
from benchmarks.heads.features import CACHE, featured
from graft_server.adapting.interim.learner import Learner, Log
from graft_server.adapting.interim.table import LEARNERS
from graft_server.domain.examples import Change, Example, Input, Kind, Label, Task
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.store.adaptations.segments import Record, Segment

COUNTS = (1, 4, 16, 64, 256)
TARGETS = {4: 0.10, 16: 0.08, 64: 0.05, 256: 0.05}
TESTED = 5_000
"""The most rows that a head is tested on."""
BINS = 10
COST_ROWS, COST_SEGMENT = 8_192, 256
PICTURES = {"train": 3_000, "t10k": 4_000}
EDGE = 96
"""Pixels: pictures of 28 are enlarged to it."""

HEADINGS = (
    "set", "examples", "ECE before", "ECE", "accuracy before", "accuracy", "confidence", "known", "alarms", "foreign",
    "AUROC before", "AUROC",
)  # fmt: skip

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Data:
    """Features with their labels."""

    name: str
    train: Array
    train_labels: NDArray[np.int64]
    test: Array
    test_labels: NDArray[np.int64]
    names: Array | None = None
    """Features of the labels' names."""
    foreign: Array | None = None
    """Inputs of another set, or of none of the classes."""
    from_: str = ""
    """What is foreign, in words."""

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


@dataclass(frozen=True, slots=True)
class Stream:
    """How examples arrive."""

    name: str
    order: str = "random"
    """random, sorted (by class), or drift (the second half of the classes comes in the second half of the stream)."""
    declared: bool = False
    counts: tuple[int, ...] = COUNTS


@dataclass(frozen=True, slots=True)
class Row:
    """Means over draws, for one set and number of examples."""

    group: str
    set: str
    examples: int
    calibration_error: float
    accuracy: float
    confidence: float
    known: float
    """The share of test rows whose class the head knows."""
    false_alarms: float
    """The share of test rows that it abstains on."""
    foreign: float
    """The share of foreign inputs that it abstains on."""
    auroc: float
    """Of novelty, between test rows and foreign ones."""
    foreign_confidence: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with a ResNet")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier state")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument(
        "--measure", action="store_true", help="print what is measured as JSON, and write nothing"
    )
    parser.add_argument("--five", action="store_true", help="measure the five sets alone, in random order")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.images, options.draws, five=options.five)))
        return
    states = {"after": measured(options.images, options.draws, five=options.five)}
    if options.before:
        command = [sys.executable, "-m", "benchmarks.interim", "--measure"]
        command += ["--images", str(options.images), "--five"]
        command += ["--draws", str(options.draws)]
        path = os.pathsep.join([str(options.before / "server"), str(Path(__file__).resolve().parents[1])])
        ran = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        states["before"] = json.loads(ran.stdout.splitlines()[-1])
    machine = hardware()
    lines = [*_text(states, machine)]
    save("interim", lines, {"hardware": machine} | states)
    print("\n".join(lines))


def measured(images: Path, draws: int, *, five: bool) -> dict[str, Any]:
    """The figures of the learner that is imported: all, or those of the five sets alone."""
    sets = _sets(images)
    rows = [it for data in sets.values() for it in _rows("five sets", data, Stream("random"), draws)]
    found: dict[str, Any] = {"draws": draws, "microseconds": _cost(sets["banking77"])}
    if five:
        return found | {"rows": [asdict(it) for it in rows]}
    few = found["few"] = max(draws // 2, 1)
    rows += [it for data in _smaller(sets) for it in _rows("fewer classes", data, Stream("random"), few)]
    others = (
        Stream("sorted by class", order="sorted", counts=(16, 64, 256)),
        Stream("drifting", order="drift", counts=(16, 64, 256)),
        Stream("labels declared", declared=True, counts=(0, 4, 16, 64, 256)),
    )
    for stream in others:
        for name in ("banking77", "sms_spam", "goemotions"):
            rows += _rows(stream.name, sets[name], stream, few)
    return found | {"rows": [asdict(it) for it in rows]}


def _rows(group: str, data: Data, stream: Stream, draws: int) -> Iterator[Row]:
    found: dict[int, list[Sequence[float]]] = {}
    for seed in range(draws):
        for count, figures in _draw(data, stream, seed):
            found.setdefault(count, []).append(figures)
    for count, figures in found.items():
        yield Row(group, data.name, count, *np.mean(figures, axis=0).tolist())
    print(group, data.name, "done", file=sys.stderr, flush=True)


def _draw(data: Data, stream: Stream, seed: int) -> Iterator[tuple[int, Sequence[float]]]:
    """The figures of one stream after each of the numbers of examples."""
    labels = [f"c{number}" for number in range(data.classes)]
    learner = LEARNERS[Task.SINGLE_LABEL](
        data.train.shape[1], [Label(it) for it in labels] if stream.declared else [], closed_labels=False
    )
    rows, at = _order(data, stream, seed), 0
    for count in (it for it in stream.counts if it <= len(rows)):
        for place in range(at, count):
            _learn(learner, data, rows[place : place + 1], labels, place)
        at = count
        _name(learner, data, labels)
        fitted = learner.fit()
        if fitted is not None:
            columns = np.array([int(label.name[1:]) for label in fitted.labels])
            yield count, _figures(fitted.head, columns, data)


def _learn(learner: Learner, data: Data, rows: NDArray[np.int64], labels: list[str], first: int) -> None:
    """A segment of examples, and the names of new labels as the server takes them in."""
    changes = [
        Change(upsert=Example(str(first + n), Input(Kind.TEXT, "-"), label=labels[data.train_labels[row]]))
        for n, row in enumerate(rows)
    ]
    segment = Segment("w", first, first, tuple(Record(1, it) for it in changes))
    learner.learn(Log(0, "w"), segment, segment.next_sequence, data.train[rows], _never)
    _name(learner, data, labels)


def _name(learner: Learner, data: Data, labels: list[str]) -> None:
    if data.names is not None and (unnamed := learner.unnamed):
        learner.name({label.name: data.names[labels.index(label.name)] for label in unnamed})


def _never(*_: object) -> Any:
    raise AssertionError("nothing is corrected")


def _order(data: Data, stream: Stream, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.train))[: max(stream.counts)]
    classes = data.train_labels[rows]
    if stream.order == "sorted":
        return rows[np.argsort(rng.permutation(data.classes)[classes], kind="stable")]
    if stream.order == "drift":
        late = rng.permutation(data.classes)[classes] >= data.classes / 2
        return rows[np.argsort(late * len(rows) / 2 + rng.uniform(0, len(rows), len(rows)))]
    return rows


def _figures(head: Any, columns: NDArray[np.int64], data: Data) -> Sequence[float]:
    answer = head.scores(data.test)
    confidence = answer.probabilities.max(axis=1)
    right = columns[answer.probabilities.argmax(axis=1)] == data.test_labels
    own = [
        calibration_error(confidence, right),
        float(right.mean()),
        float(confidence.mean()),
        float(np.isin(data.test_labels, columns).mean()),
        float((answer.novelty > ABSTAIN_ABOVE).mean()),
    ]
    if data.foreign is None:
        return [*own, np.nan, np.nan, np.nan]
    foreign = head.scores(data.foreign)
    return [
        *own,
        float((foreign.novelty > ABSTAIN_ABOVE).mean()),
        auroc(answer.novelty, foreign.novelty),
        float(foreign.probabilities.max(axis=1).mean()),
    ]


def calibration_error(confidence: Array, right: NDArray[np.bool_]) -> float:
    """Expected calibration error over bins of equally many rows."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    return float(sum(abs(confidence[it].mean() - right[it].mean()) * len(it) for it in parts) / len(right))


def auroc(inside: Array, foreign: Array) -> float:
    """How often a foreign input is stranger than one of the set."""
    ranks = rankdata(np.concatenate([inside, foreign]))[len(inside) :]
    return float((ranks.sum() - len(foreign) * (len(foreign) + 1) / 2) / len(inside) / len(foreign))


def _cost(data: Data) -> float:
    """Microseconds that an example costs the learner, in segments as a fast stream has them; the best of 3."""
    labels = [f"c{number}" for number in range(data.classes)]
    best = np.inf
    for _ in range(3):
        learner = LEARNERS[Task.SINGLE_LABEL](data.train.shape[1], [], closed_labels=False)
        rows = np.random.default_rng(0).permutation(len(data.train))[:COST_ROWS]
        took = 0.0
        for ordinal, part in enumerate(np.array_split(rows, COST_ROWS // COST_SEGMENT)):
            began = time.process_time()
            _learn(learner, data, part, labels, ordinal * COST_SEGMENT)
            took += time.process_time() - began
        best = min(best, took / COST_ROWS)
    return best * 1e6


def _sets(images: Path) -> dict[str, Data]:
    emotions = goemotions_single()
    some = replace(
        emotions,
        name="goemotions-interim",
        train=emotions.train[:4_000],
        train_labels=emotions.train_labels[:4_000],
        test=emotions.test[:2_500],
        test_labels=emotions.test_labels[:2_500],
    )
    texts = {"banking77": banking77(), "clinc150": clinc150(), "sms_spam": sms_spam(), "goemotions": some}
    sets = {name: _texts(name, it) for name, it in texts.items()}
    foreign = {"banking77": "clinc150", "sms_spam": "banking77", "goemotions": "sms_spam"}
    for name, other in foreign.items():
        sets[name] = replace(sets[name], foreign=sets[other].test[:1_000], from_=other)
    sets["clinc150"] = replace(sets["clinc150"], from_="its out-of-scope test")
    pictures = _pictures(images)
    sets["fashion_mnist"] = replace(pictures, foreign=None)
    return sets


def _texts(name: str, texts: Texts) -> Data:
    """All rows that are not streamed are tested, up to `TESTED`."""
    views = featured(texts)
    train, test = (it["pooled"].astype(np.float32) for it in (views.train, views.test))
    labels, test_labels = texts.train_labels.astype(np.int64), texts.test_labels.astype(np.int64)
    if len(test) < TESTED:
        held_out = np.random.default_rng(1).permutation(len(train))
        more = held_out[: min(TESTED - len(test), len(train) // 2)]
        test, test_labels = np.concatenate([test, train[more]]), np.concatenate([test_labels, labels[more]])
        kept = np.setdiff1d(held_out, more)
        train, labels = train[kept], labels[kept]
    foreign = views.foreign["pooled"].astype(np.float32) if views.foreign else None
    names = views.names["pooled"].astype(np.float32)
    return Data(name, train, labels, test[:TESTED], test_labels[:TESTED], names, foreign)


def _pictures(folder: Path) -> Data:
    path = CACHE / "interim-fashion_mnist.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_encoded(folder))
        partial.rename(path)
    with np.load(path) as found:
        arrays = {name: found[name] for name in found.files}
    return Data(
        "fashion_mnist",
        arrays["train"].astype(np.float32),
        arrays["train_labels"].astype(np.int64),
        arrays["t10k"].astype(np.float32),
        arrays["t10k_labels"].astype(np.int64),
    )


def _encoded(folder: Path) -> dict[str, NDArray[Any]]:
    """Pooled features of the first pictures of both parts, unit-norm."""
    import torch  # noqa: PLC0415 (only a cold cache needs the backbone)
    from transformers import AutoModel  # noqa: PLC0415

    settings = json.loads((folder / "preprocessor_config.json").read_text())
    mean, deviation = (torch.tensor(settings[it])[:, None, None] for it in ("image_mean", "image_std"))
    model = AutoModel.from_pretrained(str(folder)).eval()
    arrays: dict[str, NDArray[Any]] = {}
    for part, count in PICTURES.items():
        with gzip.open(DATA / "fashion_mnist" / f"{part}-images-idx3-ubyte.gz") as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
        with gzip.open(DATA / "fashion_mnist" / f"{part}-labels-idx1-ubyte.gz") as file:
            arrays[f"{part}_labels"] = np.frombuffer(file.read(), np.uint8, offset=8)[:count].copy()
        rows = []
        for start in range(0, count, 50):
            batch = torch.from_numpy(pixels[start : start + 50].astype(np.float32) / 255).repeat(1, 3, 1, 1)
            batch = torch.nn.functional.interpolate(batch, size=(EDGE, EDGE), mode="bilinear")
            with torch.inference_mode():
                pooled = model((batch - mean) / deviation).last_hidden_state.mean((2, 3))
            rows.append(torch.nn.functional.normalize(pooled).numpy().astype(np.float16))
        arrays[part] = np.concatenate(rows)
    return arrays


def _smaller(sets: Mapping[str, Data]) -> Iterator[Data]:
    """Balanced sets of few classes."""
    rng = np.random.default_rng(0)
    for name, classes in (
        ("banking77", 2),
        ("fashion_mnist", 2),
        ("clinc150", 3),
        ("fashion_mnist", 5),
        ("banking77", 5),
        ("clinc150", 10),
        ("banking77", 10),
    ):
        data = sets[name]
        chosen = np.sort(rng.choice(data.classes, classes, replace=False))
        train, test = np.isin(data.train_labels, chosen), np.isin(data.test_labels, chosen)
        yield replace(
            data,
            name=f"{name}, {classes} classes",
            train=data.train[train],
            train_labels=np.searchsorted(chosen, data.train_labels[train]),
            test=data.test[test],
            test_labels=np.searchsorted(chosen, data.test_labels[test]),
            names=None if data.names is None else data.names[chosen],
        )


def _text(states: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[str]:
    draws, few = states["after"]["draws"], states["after"].get("few", 0)
    yield from ("# The interim head: calibration and novelty", "")
    yield ", ".join(f"{key}: {value}" for key, value in machine.items())
    yield from (
        "",
        f"Means over {draws} draws ({few} beside the five sets), examples one after the other;",
    )
    yield f"tested on up to {TESTED:,} rows of all classes, also of those that no example has shown yet. ECE: expected"
    yield f"calibration error over {BINS} bins of equally many rows. Known: the share of test rows whose class has an"
    yield "example or a name. Alarms: the share of test rows that are abstained on; foreign: that of foreign inputs;"
    yield "AUROC: of novelty between both."
    if "before" in states:
        yield f"Before: the state of an earlier revision, means over {states['before']['draws']} draws."
    rows = [Row(**it) for it in states["after"]["rows"]]
    earlier = {
        (it.group, it.set, it.examples): it for it in map(_row, states.get("before", {}).get("rows", []))
    }
    for group in dict.fromkeys(it.group for it in rows):
        yield from ("", f"## {group.capitalize()}", "")
        yield f"| {' | '.join(HEADINGS)} |"
        yield "|" + "---|" * len(HEADINGS)
        for it in (it for it in rows if it.group == group):
            old = earlier.get((it.group, it.set, it.examples))
            before = [
                _number(old and getattr(old, name)) for name in ("calibration_error", "accuracy", "auroc")
            ]
            cells = [it.set, str(it.examples), before[0], _number(it.calibration_error), before[1]]
            cells += map(_number, (it.accuracy, it.confidence, it.known, it.false_alarms, it.foreign))
            yield f"| {' | '.join([*cells, before[2], _number(it.auroc)])} |"
        yield from _means(group, rows, earlier)
    yield from ("", "## Cost", "")
    costs = ", ".join(f"{name} {state['microseconds']:.0f}" for name, state in states.items())
    yield f"Processor microseconds that an example costs the learner (Banking77, segments of {COST_SEGMENT}): {costs}."


def _means(group: str, rows: Sequence[Row], earlier: Mapping[tuple[str, str, int], Row]) -> Iterator[str]:
    counts = dict.fromkeys(it.examples for it in rows if it.group == group)
    for count in counts:
        here = [it for it in rows if (it.group, it.examples) == (group, count)]
        old = [earlier[key] for it in here if (key := (it.group, it.set, it.examples)) in earlier]
        before = float(np.mean([it.calibration_error for it in old])) if old else None
        after = float(np.mean([it.calibration_error for it in here]))
        aim = f" (at most {TARGETS[count]:.2f} wanted)" if group == "five sets" and count in TARGETS else ""
        yield f"| **mean** | {count} | {_number(before)} | {after:.3f}{aim} |" + " |" * 8


def _row(fields: Mapping[str, Any]) -> Row:
    return Row(**fields)


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
