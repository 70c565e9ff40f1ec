"""What a report says of examples without a target: how many are novel to the head, and whether that grows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graft_server.domain.report import Report, UnlabelledReport
from graft_server.domain.views import names_of, stacked
from graft_server.heads import Head
from graft_server.heads.novelty import ABSTAIN_ABOVE
from graft_server.training.examples.training_set import ExampleSet

LEAST = 100
"""With fewer unlabelled examples nothing is warned of."""
SURE = 3.0
"""Standard errors by which a share must differ to be warned of."""
MANY_NOVEL = 0.15
"""The least share of novel ones that is warned of: by the head's table, 0.05 of inputs like the labelled ones are."""
LARGE_DRIFT = 0.1
"""The least growth of that share that is warned of."""


def with_strangers(report: Report, head: Head, train: ExampleSet, unlabelled: int) -> Report:
    """Returns the report with the share of unlabelled examples that are novel, and warnings if there are many.

    Args:
        report: The report of a head, with what its training made of them, if they were tried.
        head: The head.
        train: What it was trained on.
        unlabelled: How many examples carry no target.
    """
    if not unlabelled:
        return report
    found = replace(report.unlabelled or UnlabelledReport(0), examples=unlabelled)
    if not train.unlabelled.keys() >= set(names_of(head.view)):
        return replace(report, unlabelled=found)
    features = stacked(train.unlabelled, head.view).astype(np.float32)
    novel = head.scores(features).novelty > ABSTAIN_ABOVE
    older, newer = novel[: len(novel) // 2], novel[len(novel) // 2 :]
    drift = float(newer.mean() - older.mean()) if len(older) else 0.0
    found = replace(found, novel_share=float(novel.mean()), drift=drift)
    warnings = _warnings(found, len(novel), report.examples)
    return replace(report, unlabelled=found, warnings=(*report.warnings, *warnings))


def _warnings(found: UnlabelledReport, looked_at: int, examples: int) -> list[str]:
    if looked_at < LEAST:
        return []
    warnings = []
    usual = 1 - ABSTAIN_ABOVE
    # The table's share is an estimate too, from the labelled examples.
    noise = np.sqrt(usual * (1 - usual) * (1 / looked_at + 1 / max(examples, 1)))
    if found.novel_share > max(MANY_NOVEL, usual + SURE * noise):
        warnings.append(
            f"{found.novel_share:.0%} of {looked_at:,} unlabelled examples are unlike anything labelled, where "
            f"{usual:.0%} are expected: label some of them ('graft next MODEL')."
        )
    share = found.novel_share
    noise = np.sqrt(share * (1 - share) * 4 / looked_at)
    if found.drift > max(LARGE_DRIFT, SURE * noise):
        warnings.append(
            f"What comes in is changing: {share + found.drift / 2:.0%} of the newer half of {looked_at:,} unlabelled "
            f"examples are unlike anything labelled, and {share - found.drift / 2:.0%} of the older half: label some "
            "of the newest."
        )
    return warnings
