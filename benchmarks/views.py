"""What the views cost that no head has asked for yet: python -m benchmarks.views [--rounds 30].

The shared encoder gives every view in one pass. Its graph is cut down to the pooled view alone, and both encode the
same packed batches of Banking77's test sentences in turns, on one thread. The figure is the median of the rounds'
ratios of CPU time, which other work on the machine moves less than the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.utils import Extractor

from benchmarks.datasets import banking77
from benchmarks.harness import hardware
from benchmarks.inprocess import fp32_graph, tokenized
from graft_server.encoding.encoder import Encoder

RESULTS = Path(__file__).parent / "results" / "views.md"
BATCH, BATCHES = 8, 24
Batches = Sequence[Sequence[NDArray[np.int64]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    tokens = tokenized(banking77().test[: BATCH * BATCHES])
    batches = [tokens[start : start + BATCH] for start in range(0, len(tokens), BATCH)]
    whole = Encoder(fp32_graph(), device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        alone = Encoder(_pooled_alone(fp32_graph(), Path(folder)), device="cpu", threads=1)
        _require_same(whole, alone, batches[0])
        ratios = []
        for one in range(rounds + 1):
            # In turns, and in turns first: what else the machine does falls on both.
            order = (whole, alone) if one % 2 else (alone, whole)
            took = {id(encoder): _seconds(encoder, batches) for encoder in order}
            ratios.append(took[id(whole)] / took[id(alone)])
    ratios = sorted(ratios[1:])  # the first round warms up
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    _write(
        f"Views {', '.join(whole.views)} against pooled alone, {rounds} rounds of {len(batches)} batches of {BATCH}: "
        f"{100 * (statistics.median(ratios) - 1):+.1f}% (middle half {100 * (low - 1):+.1f}% to "
        f"{100 * (high - 1):+.1f}%)."
    )


def _pooled_alone(graph: Path, folder: Path) -> Path:
    """The graph without what only the other views need."""
    model = onnx.load(str(graph))
    inputs = [it.name for it in model.graph.input]
    cut = folder / "pooled.onnx"
    onnx.save(Extractor(model).extract_model(inputs, ["pooled"]), str(cut))
    return cut


def _require_same(whole: Encoder, alone: Encoder, batch: Sequence[NDArray[np.int64]]) -> None:
    off = np.abs(whole.encode(batch)["pooled"] - alone.encode(batch)["pooled"]).max()
    if alone.views != ("pooled",) or off > 1e-5:
        raise SystemExit(f"the graph that was cut down is another: {alone.views}, off by {off}")


def _seconds(encoder: Encoder, batches: Batches) -> float:
    started = time.process_time()
    for batch in batches:
        encoder.encode(batch)
    return time.process_time() - started


def _write(found: str) -> None:
    machine = hardware()
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, {machine['date']}"
    text = f"# The cost of every view\n\nMeasured on {where}.\n\n{found}\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
