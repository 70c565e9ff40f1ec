"""How far work is, in words for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from graft._records.adapting.told import AdaptProgress
from graft._records.records import Progress
from graft._report import words

Told = AdaptProgress | Progress

_DOING: Final = {
    "committed": "the server begins to train",
    "waiting": "waiting for a worker: others train",
    "encoding": "encoding",
    "reading": "reading the examples",
    "checking": "looking for copies",
    "selecting": "trying heads",
    "fitting": "fitting the chosen head",
    "measuring": "measuring",
    "comparing": "comparing with full precision",
    "caching": "preparing to tune",
    "loading": "loading what is tuned",
    "tuning": "tuning",
    "publishing": "publishing",
}
"""What is said of a stage; of others, their name."""
_PLAIN: Final = {"examples", ""}
"""Units that need no name before the numbers."""
_SINGULAR: Final = {"candidates": "candidate", "steps": "step", "parts": "part", "fits": "fit"}


def doing(told: Told) -> str:
    """What is being done, and how much of it: "encoding 3,120 of 10,000 examples"."""
    if isinstance(told, AdaptProgress):
        if told.trouble is not None:
            return f"no connection, trying again: {told.trouble.message:.80}"
        if told.stage == "streaming":
            return _streaming(told)
        if told.stage == "published":
            return f"published: {told.acknowledged:,} examples{_refused(told)}"
    elif told.stage == "streaming":
        return f"streaming: {_taken(told)}{learned(told.metrics)}"
    return f"{_DOING.get(told.stage, told.stage)}{_count(told)}{_tuning(told.metrics)}"


def learned(metrics: Mapping[str, float]) -> str:
    """How well a stream is being learned; nothing where that is not known."""
    right = metrics.get("prequential_accuracy")
    if right is None or metrics.get("examples", words.LEAST_EXAMPLES) < words.LEAST_EXAMPLES:
        return ""
    return f", {words.percent(right)} predicted right before they were learned"


def span(seconds: float) -> str:
    """A time as a clock shows it: 0:00:12."""
    whole = max(int(seconds), 0)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def clock(elapsed_s: float, left_s: float | None) -> str:
    """How long it has taken, and, if that is known, how long it will still take."""
    left = ""
    if left_s is not None:
        left = f", about {span(left_s + 0.5)} left" if left_s >= 1 else ", almost done"
    return f"{span(elapsed_s)}{left}"


def _streaming(told: AdaptProgress) -> str:
    version = f", version {told.version}" if told.version else ""
    encoded = f", {told.done:,} encoded" if told.total and told.done < told.total else ""
    stored = f"{told.acknowledged:,} examples stored"
    return f"streaming: {stored}{encoded}{_refused(told)}{learned(told.metrics)}{version}"


def _refused(told: AdaptProgress) -> str:
    return f", {told.rejected:,} refused" if told.rejected else ""


def _taken(told: Progress) -> str:
    if "examples" in told.metrics:
        return f"{told.metrics['examples']:,.0f} examples learned"
    return f"{told.done:,} of {told.total:,} examples encoded"


def _count(told: Told) -> str:
    if not (told.total and told.unit):
        return ""
    if told.unit in _PLAIN:
        return f" {told.done:,} of {told.total:,} {told.unit}".rstrip()
    return f": {_SINGULAR.get(told.unit, told.unit)} {min(told.done + 1, told.total):,} of {told.total:,}"


def _tuning(metrics: Mapping[str, float]) -> str:
    if "training" in metrics and "trainings" in metrics:
        loss = f", loss {metrics['train_loss']:.3f}" if metrics.get("train_loss") else ""
        return f", training {metrics['training']:.0f} of {metrics['trainings']:.0f}{loss}"
    if "epoch" not in metrics:
        return ""
    epochs = f" of {metrics['epochs']:.0f}" if "epochs" in metrics else ""
    loss = f", loss {metrics['train_loss']:.3f}" if "train_loss" in metrics else ""
    held_out = f", held-out {metrics['held_out_log_loss']:.3f}" if "held_out_log_loss" in metrics else ""
    return f", epoch {metrics['epoch']:.1f}{epochs}{loss}{held_out}"
