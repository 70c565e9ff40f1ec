"""How far work on the server is, as it tells and as a call knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graft._records.fields import seconds_of
from graft.errors import GraftError
from graft.v1 import adaptation_pb2


@dataclass(frozen=True, slots=True)
class Progress:
    """The work that the server is doing."""

    commit_id: str
    """The commit that is being worked on."""
    stage: str
    """For example "encoding", "selecting" or "publishing"."""
    fraction: float
    """How much of the commit's work is done, 0 to 1."""
    metrics: Mapping[str, float]
    """Figures so far, by name."""
    eta_s: float | None
    """How long the rest will take, in seconds; None where that is not known yet."""
    done: int = 0
    """How much of the stage is done, in units."""
    total: int = 0
    """How much there is to do in the stage; 0 where nothing is counted."""
    unit: str = ""
    """What is counted, for example "examples", "candidates" or "steps"."""
    elapsed_s: float | None = None
    """How long the server has worked on the commit, or taken in the stream, in seconds; None where it does not say."""


NOTHING_TOLD: Final = Progress("", "", 0.0, {}, None)
"""Before a server has told anything."""


@dataclass(frozen=True, slots=True)
class AdaptProgress:
    """How far an `adapt` call has come."""

    adaptation_id: str
    """The adaptation, to watch or resume it by."""
    stage: str
    """"connecting", "streaming", "committed", or the server's stage, for example "selecting"."""
    sent: int
    """The number of examples that were sent to the server, now or by an earlier call."""
    acknowledged: int
    """How many examples are durable, or were refused."""
    rejected: int
    """How many examples were refused."""
    fraction: float
    """How much of the training is done, 0 to 1."""
    metrics: Mapping[str, float]
    """The server's figures so far, by name; of the stream, for example "prequential_accuracy"."""
    version: int
    """The newest version published during this call, by the client's commit or by the server's own; 0: none."""
    eta_s: float | None
    """How long the rest of the training will take, in seconds, if known."""
    reconnects: int
    """How many times the call was broken and resumed."""
    trouble: GraftError | None
    """Why there is no connection now, while the client tries a new one."""
    first_sequence: int = 0
    """The number of this call's first example in the writer's stream; 0 unless the call appends to it."""
    done: int = 0
    """How much of the stage is done, in units; of "streaming", how many examples are encoded."""
    total: int = 0
    """How much there is to do in the stage, as far as that is known; 0 where nothing is counted."""
    unit: str = ""
    """What is counted, for example "examples", "candidates" or "steps"."""
    elapsed_s: float = 0.0
    """How long this call has been going on, in seconds."""
    commit_id: str = ""
    """The commit, once it is durable: from then on it is carried out whether or not this call goes on."""


def progress_of(message: adaptation_pb2.Progress) -> Progress:
    """The progress that a message carries."""
    return Progress(
        commit_id=message.commit_id,
        stage=message.stage,
        fraction=message.fraction,
        metrics=dict(message.metrics),
        eta_s=seconds_of(message.eta) if message.HasField("eta") else None,
        done=message.done,
        total=message.total,
        unit=message.unit,
        elapsed_s=seconds_of(message.elapsed) if message.HasField("elapsed") else None,
    )
