"""The tuned graph, checked against torch, and its features of all examples."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from graft_server.backbones.graphs.cache import HIDDEN
from graft_server.backbones.graphs.cutting import pruned, replant
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.backbones.torch.export import write_graph
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.hidden import ENCODED_TOKENS, Hidden, by_length, parts, session_over
from graft_server.backbones.torch.tuning.tunable import Tunable, forward
from graft_server.domain.errors import BackboneError, FaultError
from graft_server.domain.views import POOLED

_log = logging.getLogger(__name__)

PARITY = 1e-4
"""The largest difference between the tuned graph's features and torch's."""
PARITY_TEXTS = 64

Array = NDArray[np.float32]


def untold(_done: int) -> None:
    """Tells nobody."""


def write(
    path: Path,
    examples: Examples,
    model: Tunable,
    *,
    graph: Path,
    original: Mapping[str, Array],
    hidden: Hidden | None,
    preprocessor: Preprocessor,
    threads: int,
    told: Callable[[int], None] = untold,
) -> NDArray[np.float16]:
    """Writes the graph, and returns its features of all examples, shape (n, d).

    Args:
        path: Where to.
        examples: Those whose features are wanted.
        model: The tuned model.
        graph: The file of the encoder, or of its part above the cut, which has the weights from before.
        original: These weights; see `Tunable.tuned`.
        hidden: The hidden states at the cut; None where all is tuned.
        preprocessor: The backbone's.
        threads: How many batches are encoded at once.
        told: Told how many examples have been encoded.

    Raises:
        FaultError: The graph computes something else than torch (TUNED_PARITY).
    """
    model.eval()
    try:
        _replant(onnx.load(str(graph)), original, model.tuned(), path)
    except BackboneError as error:
        # The exporter merges weights that begin equal, and normalisations into what they follow.
        _log.info("the tuned layers are exported anew: %s", error.message)
        _export(model, hidden, preprocessor, path)
    features = features_of(path, examples, hidden, preprocessor, threads=threads, told=told)
    _check(model, examples, hidden, preprocessor, features)
    return features.astype(np.float16)


def _replant(
    whole: onnx.ModelProto, original: Mapping[str, Array], tuned: Mapping[str, Array], path: Path
) -> None:
    """Writes the graph that there is with the tuned weights in it: that takes no time."""
    replant(whole, original, tuned)
    for output in list(whole.graph.output):
        if output.name != POOLED:
            whole.graph.output.remove(output)
    onnx.save(pruned(whole), str(path))


def _export(model: Tunable, hidden: Hidden | None, preprocessor: Preprocessor, path: Path) -> None:
    """Writes the graph of the module itself: that takes seconds."""
    graph = model.graph
    batch, dynamic = dict(preprocessor.collate(graph.items)), dict(graph.dynamic)
    names = list(batch)
    if hidden is not None:
        other = hidden.compute(preprocessor.collate(graph.items[:1]))
        batch[HIDDEN] = hidden.compute(batch)
        # Which axes differ from batch to batch, and with which others they agree, shows by itself.
        same = zip(batch[HIDDEN].shape, other.shape, strict=True)
        dynamic[HIDDEN] = {axis: torch.export.Dim.AUTO for axis, (one, two) in enumerate(same) if one != two}
    module = _Features(model, names).eval()
    write_graph(
        dataclasses.replace(graph, module=module, dynamic=dynamic, views=(POOLED,)), batch, path, starred=True
    )


class _Features(torch.nn.Module):
    """A tunable model from arguments in the order of a graph's inputs, hidden states last, to features alone."""

    def __init__(self, model: Tunable, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        hidden = arguments[-1] if len(arguments) > len(self.names) else None
        inputs = dict(zip(self.names, arguments, strict=False))
        features: torch.Tensor = self.model(inputs, hidden)[0]
        return features


def features_of(
    graph: Path,
    examples: Examples,
    hidden: Hidden | None,
    preprocessor: Preprocessor,
    *,
    threads: int,
    told: Callable[[int], None],
) -> Array:
    """The graph's features of all examples, shape (n, d)."""
    session = session_over(graph)
    kinds = {
        it.name: np.float16 if it.type == "tensor(float16)" else np.float32 for it in session.get_inputs()
    }
    features = np.empty((len(examples.labels), examples.head[0].shape[0]), np.float32)

    def encode(rows: NDArray[np.int64]) -> None:
        inputs: dict[str, Any] = dict(preprocessor.collate(examples.items(rows)))
        if hidden is not None:
            inputs[HIDDEN] = hidden.of(rows, inputs).astype(kinds[HIDDEN])
        (features[rows],) = session.run([POOLED], {name: inputs[name] for name in kinds})

    order = by_length(examples, np.arange(len(features)))
    batches, done = list(parts(examples, order, ENCODED_TOKENS)), 0
    with ThreadPoolExecutor(threads) as executor:
        for rows, _ in zip(batches, executor.map(encode, batches), strict=True):
            done += len(rows)
            told(done)
    return features


def _check(
    model: Tunable,
    examples: Examples,
    hidden: Hidden | None,
    preprocessor: Preprocessor,
    features: Array,
) -> None:
    order = by_length(examples, np.arange(len(features)))
    rows = order[:: max(1, len(order) // PARITY_TEXTS)]
    worst = 0.0
    with torch.no_grad():
        for part in parts(examples, rows, 2048):
            found, _ = forward(model, examples, hidden, preprocessor, part)
            worst = max(worst, float(np.abs(found.cpu().numpy() - features[part]).max()))
    if not worst <= PARITY:  # the negation makes NaN fail too
        raise FaultError(
            f"The tuned graph's features differ from torch's by {worst:.1e} (at most {PARITY:.0e} is accepted), so "
            "it is not served. Commit again; if it fails again, report it.",
            reason="TUNED_PARITY",
        )
