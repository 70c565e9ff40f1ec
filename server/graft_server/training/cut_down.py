"""Whether a tuned version is kept as an adapter: where that is not worse beyond noise, and takes less to hold.

Both are measured on the same examples, which neither has seen, each with the head that suits it best.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from graft_server.backbones.tuning_objects import TunedParts, read_adapter, read_top
from graft_server.domain.report import TuningReport
from graft_server.store.catalogue.versions import ADAPTER, TOP
from graft_server.store.objects.objects import Objects
from graft_server.training.contract import Finishing
from graft_server.training.search.evidence import mean_and_variance
from graft_server.training.tasks.task import Measuring, TunedHead

STANDARD_ERRORS = 2.0
"""By how many of its standard errors the loss of an adapter may be above that of the tuned graph."""
MOST_LOST = 0.1
"""The share of the gain over the frozen head that may be lost at most, whatever the noise: few examples are noisy."""


def measured(
    objects: Objects, task: Finishing, tried: TuningReport, measuring: Measuring
) -> tuple[TuningReport, TunedHead | None, dict[str, bytes]]:
    """Measures what a tuning made, and what it was cut down to; returns one of them, with its part of a version.

    Args:
        objects: The store.
        task: The tuning.
        tried: What is known of it.
        measuring: Measures one; see `tasks.task.TuningTask`.
    """
    made = TunedParts.read(objects, task.tuned.made)
    report, head = measuring(objects, task, tried, made)
    if head is None:
        return report, None, {}
    low = made.cut_down
    if low is not None:
        low_report, low_head = measuring(objects, task, tried, low)
        gain = report.frozen_log_loss - report.tuned_log_loss
        if low_head is not None and is_no_worse(low_head, head, gain):
            share = made.adapter_bytes / max(made.top_bytes, 1)
            low_report = dataclasses.replace(
                low_report,
                rank=made.rank,
                full_bytes=made.top_bytes,
                # Nothing of the backbone runs for it alone, but what is added to it.
                own_share=report.own_share * share,
            )
            return low_report, low_head, {ADAPTER: read_adapter(objects, task.tuned.made)}
    return report, head, {TOP: read_top(objects, task.tuned.made)}


def is_no_worse(low: TunedHead, full: TunedHead, gain: float) -> bool:
    """Whether an adapter is as good as the tuned graph, as far as can be told.

    Args:
        low: The head on the adapter's features.
        full: The head on those of the tuned graph; measured on the same examples.
        gain: By how much the log-loss of the latter is below that of the frozen head, in nats.
    """
    if low.losses.shape != full.losses.shape:
        return False
    lost, variance = mean_and_variance(low.losses - full.losses, full.weights)
    return bool(lost <= STANDARD_ERRORS * float(np.sqrt(variance)) and lost <= MOST_LOST * max(gain, 0.0))
