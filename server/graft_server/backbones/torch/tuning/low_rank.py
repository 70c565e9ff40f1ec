"""The adapter of a tuning: what it makes of all examples, checked as it would be served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from graft_server.backbones.graphs.adapted import merged, with_adapters
from graft_server.backbones.graphs.adapters import Adapter, in_lanes, places_of, room_of
from graft_server.backbones.graphs.cache import HIDDEN
from graft_server.backbones.graphs.compressing import Compressor
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.backbones.text.preprocessor import is_packed
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Compressed, Ground
from graft_server.backbones.torch.tuning.hidden import Hidden, by_length, session_over
from graft_server.backbones.torch.tuning.tuned_graph import features_of, untold
from graft_server.domain.views import POOLED

_log = logging.getLogger(__name__)

PARITY = 1e-3
"""The largest difference between features of rows in a mixed batch, and those by merged weights."""
PARITY_TEXTS = 16
MERGED, ADAPTED = "merged.onnx", "adapted.onnx"

Array = NDArray[np.float32]


def compressed(
    ground: Ground,
    compressor: Compressor,
    tuned: Mapping[str, Array],
    *,
    hidden: Hidden | None,
    told: Callable[[int], None] = untold,
) -> Compressed | None:
    """Cuts tuned weights down to an adapter; None where the graph has no room for one, or would serve it otherwise.

    So it is where weights are no plain products: the tuned graph is kept then.

    Args:
        ground: What was tuned, and where.
        compressor: What cuts its weights down.
        tuned: The tuned weights by name; see `tunable.Tunable.tuned`.
        hidden: The hidden states at the cut; None where all is tuned.
        told: Told how many examples have been encoded.
    """
    backbone, folder, graph, examples = ground.backbone, ground.folder, ground.graph, ground.examples
    preprocessor = backbone.preprocessor()
    adapter = compressor.adapter(tuned)
    if not adapter.products:
        return None
    path = folder / MERGED
    try:
        onnx.save(merged(onnx.load(str(graph)), adapter), str(path))
        onnx.save(with_adapters(onnx.load(str(graph)), backbone.name), str(folder / ADAPTED))
        worst = _worst(folder, adapter, examples, graph=graph, hidden=hidden, preprocessor=preprocessor)
    except Exception as error:  # noqa: BLE001 - whatever the runtime says of such a graph, the tuned one is kept
        _log.info("the tuned layers are kept as they are: %s", error)
        return None
    if not worst <= PARITY:  # the negation makes NaN fail too
        _log.info("the tuned layers are kept as they are: in a mixed batch an adapter is off by %.1e", worst)
        return None
    features = features_of(path, examples, hidden, preprocessor, threads=ground.threads, told=told)
    return Compressed(adapter, features.astype(np.float16))


def _worst(
    folder: Path,
    adapter: Adapter,
    examples: Examples,
    *,
    graph: Path,
    hidden: Hidden | None,
    preprocessor: Preprocessor,
) -> float:
    """The largest difference that a mixed batch makes: every other row has the adapter, the rest has none."""
    order = by_length(examples, np.arange(len(examples.labels)))
    rows = order[:: max(1, len(order) // PARITY_TEXTS)]
    inputs: dict[str, Any] = dict(preprocessor.collate(examples.items(rows)))
    if hidden is not None:
        inputs[HIDDEN] = hidden.of(rows, inputs)
    mixed = session_over(folder / ADAPTED)
    shapes = {it.name: it.shape for it in mixed.get_inputs()}
    places = places_of(examples.items(rows), inputs, packed=is_packed(preprocessor))
    own = [adapter if row % 2 else None for row in range(len(rows))]
    own[-1] = adapter
    arrays = inputs | in_lanes(own, places, room_of(shapes))
    (found,) = mixed.run([POOLED], {name: arrays[name] for name in shapes})
    worst = 0.0
    for path, of in ((folder / MERGED, True), (graph, False)):
        session = session_over(path)
        (right,) = session.run([POOLED], {it.name: inputs[it.name] for it in session.get_inputs()})
        mine = np.array([(it is not None) is of for it in own])
        worst = max(worst, float(np.abs(found[mine] - right[mine]).max(initial=0.0)))
    return worst
