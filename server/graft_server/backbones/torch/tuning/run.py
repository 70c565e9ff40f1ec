"""What tunings of a backbone have in common, whatever they learn by: the model, what is computed once, and progress."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.graphs.compressing import Compressor
from graft_server.backbones.torch.tuning import low_rank, tuned_graph
from graft_server.backbones.torch.tuning.checkpoint import Checkpoint, TrainingState, Weights
from graft_server.backbones.torch.tuning.device import has_bfloat16
from graft_server.backbones.torch.tuning.ground import Compressed, Ground
from graft_server.backbones.torch.tuning.hidden import Hidden
from graft_server.backbones.torch.tuning.tunable import Tunable
from graft_server.jobs.job import OnProgress, Progress

TOKENS_AT_ONCE = 8_192
"""A step works on its examples in parts of at most this many tokens: this bounds memory."""
EVALUATED_TOKENS = 2_048
"""The same where no gradients are needed."""
CLIP = 1.0
WEIGHT_DECAY = 0.01
MAX_DIVERGED = 3
SLOWER = 0.3
"""What the learning rate is multiplied by after it diverged."""
SETTLED_S = 1.0
"""How long hidden states are computed before it is judged how long all of them will take."""
CACHED, TRAINED = 0.05, 0.95
"""How much is done when what is computed once is kept, and when the training ends."""
PROGRESS_S = 0.5
CHECKPOINT_S = 60.0
"""The longest between two checkpoints: a kill costs no more."""
CHECKPOINT = "checkpoint.pt"
TOP = "top.onnx"

S = TypeVar("S", bound=TrainingState)


class NoTimeError(Exception):
    """The budget does not even suffice for what is computed once."""


class Run(Generic[S]):
    """One run, with a state of its own kind in checkpoints."""

    def __init__(self, ground: Ground, progress: OnProgress, of: type[S]) -> None:
        """Loads the backbone.

        Args:
            ground: What is tuned, and where.
            progress: Told how far it is.
            of: What says where training is; see `Checkpoint`.
        """
        self._began = self._saved = time.monotonic()
        self.ground, self.recipe, self.set = ground, ground.recipe, ground.examples
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.mixed = self.device.type == "cuda" or has_bfloat16()
        weight, bias = self.set.head
        backbone, below = ground.backbone, ground.below_graph
        self.preprocessor = backbone.preprocessor()
        self.model = Tunable(backbone, below=self.recipe.below, weight=weight, bias=bias).to(self.device)
        self.hidden = Hidden(self.set, below, self.preprocessor, folder=ground.folder) if below else None
        same = (backbone.encoder_id, replace(self.recipe, seconds=0.0), ground.cached, self.set.digest)
        fingerprint = hashlib.sha256(repr(same).encode()).hexdigest()
        self._checkpoint = Checkpoint(ground.folder / CHECKPOINT, fingerprint, of)
        self._progress = progress
        self._told = 0.0
        self._step_s = 0.0
        self._original: dict[str, NDArray[np.float32]] = {}
        self._compressor: Compressor | None = None

    @property
    def seconds(self) -> float:
        """What it took so far, before it was resumed too."""
        return time.monotonic() - self._began

    def finish(self) -> NDArray[np.float16]:
        """Writes the tuned graph, and returns its features of all examples; see `tuned_graph.write`."""
        return tuned_graph.write(
            self.ground.folder / TOP,
            self.set,
            self.model,
            graph=self.ground.graph,
            original=self._original,
            hidden=self.hidden,
            preprocessor=self.preprocessor,
            threads=self.ground.threads,
            told=partial(self._encoded, first=True),
        )

    def compressor(self) -> Compressor | None:
        """What cuts tuned weights down, made once; None where the backbone is not in float32."""
        if self._compressor is None and self.ground.backbone.precision == "fp32":
            self._compressor = Compressor(self.ground.graph, self._original)
        return self._compressor

    def compressed(self) -> Compressed | None:
        """What the tuned graph can be cut down to; see `low_rank.compressed`."""
        compressor = self.compressor()
        if compressor is None:
            return None
        return low_rank.compressed(
            self.ground,
            compressor,
            self.model.tuned(),
            hidden=self.hidden,
            told=partial(self._encoded, first=False),
        )

    def keep_hidden(self) -> None:
        """Computes what is below the cut, and keeps it. Raises NoTimeError."""
        ground = self.ground
        if self.hidden is not None and ground.cached:
            self._cached_from = time.monotonic()
            self.hidden.keep(memory_bytes=ground.cache_bytes, threads=ground.threads, told=self._caching)

    def _weights(self) -> Weights:
        return {name: it.detach().clone() for name, it in self.model.named_parameters() if it.requires_grad}

    def _restore(self, weights: Weights) -> None:
        self.model.load_state_dict(weights, strict=False)

    def _caching(self, done: float) -> None:
        now = time.monotonic()
        # Once it has settled. The longest come last, so this is the least that it will take.
        took_s = now - self._cached_from
        needed_s = took_s * (1 - done) / done if took_s > SETTLED_S else 0.0
        left_s = self.recipe.seconds - self.seconds
        # What a checkpoint has is kept, whatever it takes to compute its hidden states again.
        if self.recipe.seconds and needed_s > left_s and not self._checkpoint.path.exists():
            raise NoTimeError
        if now - self._told > PROGRESS_S:
            self._told = now
            total = len(self.set.labels)
            told = Progress("caching", CACHED * done, done=round(total * done), total=total, unit="examples")
            self._progress(told)

    def _encoded(self, done: int, *, first: bool) -> None:
        """Tells how many examples the tuned graph has encoded: as it is at first, and then cut down."""
        now, total = time.monotonic(), len(self.set.labels)
        if now - self._told > PROGRESS_S:
            self._told = now
            share = TRAINED + (1 - TRAINED) * (done / total + (not first)) / 2
            self._progress(Progress("encoding", share, done=done, total=total, unit="examples"))
