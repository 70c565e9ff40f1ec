"""Where a tuning is, and the checkpoints that a killed one goes on from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import torch

from graft_server.domain.report import TuningPoint

_log = logging.getLogger(__name__)

FORMAT = 1
"""The newest format of checkpoints that this release knows."""

Weights = Mapping[str, torch.Tensor]


@dataclass(slots=True)
class TrainingState:
    """Where any training is: what a checkpoint has, besides weights."""

    step: int = 0
    seconds: float = 0.0
    """What it took so far, all in all."""
    loss: float = 0.0
    """Of training, smoothed."""
    rate: float = 1.0
    """What learning rates are multiplied by: falls when training diverges."""
    diverged: int = 0
    halved: int = 0
    """How often a step's parts were made smaller."""
    tokens_at_once: int = 0
    """How large they are."""


@dataclass(slots=True)
class State(TrainingState):
    """Where a training is whose states are evaluated on examples that were held out."""

    stale: int = 0
    """Evaluations since the best one."""
    best: int = 0
    """Which evaluation was best."""
    history: list[TuningPoint] = field(default_factory=list)


S = TypeVar("S", bound=TrainingState)


@dataclass(slots=True)
class Checkpoint(Generic[S]):
    """The file that a tuning is kept in."""

    path: Path
    fingerprint: str
    """Of what is tuned, and how: another tuning does not go on from it."""
    of: type[S]
    """What says where training is, as plain data."""
    newer: bool = False
    """Whether `load` met one of a newer release, which stays: then none is saved."""

    def save(self, state: S, *, weights: Weights, best: Weights, optimizer: torch.optim.Optimizer) -> None:
        """Writes it, unless that of a newer release is there; a crash leaves the one before.

        Args:
            state: Where training is.
            weights: What is trained, as it is.
            best: What is kept besides: the best weights so far, or what the trainings before made.
            optimizer: Its state too.
        """
        if self.newer:
            return
        temporary = self.path.with_suffix(".new")
        try:
            self._write(temporary, state, weights, best, optimizer)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            _log.warning("a tuning's checkpoint cannot be written, so if killed it begins anew: %s", error)
            temporary.unlink(missing_ok=True)
            return
        temporary.replace(self.path)

    def _write(
        self, path: Path, state: S, weights: Weights, best: Weights, optimizer: torch.optim.Optimizer
    ) -> None:
        torch.save(
            {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "state": msgspec.json.encode(state),
                "weights": weights,
                "best": best,
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            path,
        )

    def load(self, optimizer: torch.optim.Optimizer) -> tuple[S, Weights, Weights] | None:
        """State, weights and best weights; puts the optimizer's and the generator's state in place.

        None if there is none of the same tuning, or what is there cannot be read: it begins anew then.
        """
        if not self.path.exists():
            return None
        before = copy.deepcopy(optimizer.state_dict()), torch.get_rng_state()
        try:
            kept = torch.load(self.path, weights_only=True)
            if kept.get("format", FORMAT) > FORMAT:
                self.newer = True
                _log.warning("the checkpoint of a newer release is left as it is: the tuning starts anew")
                return None
            if kept["fingerprint"] != self.fingerprint:
                return None
            state = msgspec.json.decode(kept["state"], type=self.of)
            weights, best = _tensors(kept["weights"]), _tensors(kept["best"])
            optimizer.load_state_dict(kept["optimizer"])
            torch.set_rng_state(kept["random"])
        except Exception as error:  # noqa: BLE001 - garbage fails in ways of its own
            _log.warning("a tuning's checkpoint cannot be read, so the tuning begins anew: %r", error)
            self.path.unlink(missing_ok=True)
            optimizer.load_state_dict(before[0])
            torch.set_rng_state(before[1])
            return None
        return state, weights, best


def _tensors(kept: Any) -> Weights:
    if not all(isinstance(it, torch.Tensor) and bool(torch.isfinite(it).all()) for it in kept.values()):
        raise ValueError("its weights are no finite numbers")
    weights: Weights = kept
    return weights
