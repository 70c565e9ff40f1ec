"""A head for one label: one or two maps from features to logits, each through a softmax, averaged and calibrated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from graft_server.domain.examples import Label, Task
from graft_server.domain.prediction import Answer
from graft_server.domain.report import Measured
from graft_server.domain.tasks.single_label import SingleLabelAnswer
from graft_server.evaluation import single_label
from graft_server.evaluation.answered import Answered
from graft_server.heads import rounding as rounded
from graft_server.heads.head import Comparison, GraphOutput
from graft_server.heads.maps import (
    LEAST_PROBABILITY,
    Map,
    Member,
    best_columns,
    blended,
    parts,
    require_width,
    softmax,
)
from graft_server.heads.nodes import Nodes
from graft_server.heads.novelty import Novelty
from graft_server.heads.packing import (
    FORMAT,
    StoredMap,
    StoredNovelty,
    pack_map,
    pack_novelty,
    positive,
    require_alike,
    unpack_map,
    unpack_novelty,
)
from graft_server.heads.rounding import BUNDLE_PARITY, GRAPH_PARITY, told_apart

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SingleLabelOutput:
    """A head's output for n inputs."""

    probabilities: Array
    """shape (n, k): calibrated, rows sum to 1, or to less for an interim head, which may not know the class."""
    novelty: Array
    """shape (n,): the share of training examples that are less strange, 0 to 1."""

    def read(self, top_k: int) -> dict[str, NDArray[Any]]:
        """Returns the best labels."""
        best = best_columns(self.probabilities, top_k)
        rows = np.arange(len(best))[:, None]
        return {"best": best, "probabilities": self.probabilities[rows, best], "novelty": self.novelty}


@dataclass(frozen=True, slots=True, eq=False)
class SingleLabelHead:
    """A function from features to calibrated probabilities over k classes, and a novelty. See `Head`."""

    task: ClassVar[Task] = Task.SINGLE_LABEL

    kind: str
    view: str
    members: tuple[Member, ...]
    """The members, at least one. The largest logit of the first one enters the novelty."""
    temperature: float
    """Averaged probabilities are raised to the power of 1 / temperature; 1 if there is one member."""
    novelty: Novelty

    @property
    def maps(self) -> tuple[Map, ...]:
        """The maps of the members."""
        return tuple(member.map for member in self.members)

    @property
    def classes(self) -> int:
        """The number k of labels."""
        return int(self.members[0].map.bias.shape[0])

    @property
    def dimension(self) -> int:
        """d, the length of a row of features."""
        return self.members[0].map.dimension

    def scores(self, features: Array) -> SingleLabelOutput:
        """See `Head`."""
        require_width(features, self.dimension)
        probabilities = np.empty((len(features), self.classes), np.float32)
        novelty = np.empty(len(features), np.float32)
        for rows, part in parts(features):
            logits = [member.map.logits(part) for member in self.members]
            probabilities[rows] = blended(
                logits,
                [member.temperature for member in self.members],
                [member.share for member in self.members],
                self.temperature,
            )
            novelty[rows] = self.novelty.scores(logits[0].max(axis=1), part)
        return SingleLabelOutput(probabilities, novelty)

    def answers(self, labels: Sequence[Label], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
        """See `Head`."""
        best, probabilities = arrays["best"].tolist(), arrays["probabilities"].tolist()
        for columns, chances in zip(best, probabilities, strict=True):
            yield SingleLabelAnswer([(labels[it].name, p) for it, p in zip(columns, chances, strict=True)])

    def changed(self, maps: tuple[Map, ...], novelty: Novelty) -> Self:
        """See `Head`."""
        members = tuple(replace(member, map=one) for member, one in zip(self.members, maps, strict=True))
        return replace(self, members=members, novelty=novelty)

    def packed(self) -> msgspec.Struct:
        """See `Head`."""
        return _Stored(
            format=FORMAT,
            kind=self.kind,
            view=self.view,
            members=tuple(_StoredMember(pack_map(it.map), it.temperature, it.share) for it in self.members),
            temperature=self.temperature,
            novelty=pack_novelty(self.novelty),
        )

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """See `Head`."""
        stored = msgspec.msgpack.decode(data, type=_Stored)
        members = tuple(
            Member(unpack_map(it.map), positive(it.temperature), positive(it.share)) for it in stored.members
        )
        novelty = unpack_novelty(stored.novelty)
        require_alike([member.map for member in members], novelty)
        return cls(stored.kind, stored.view, members, positive(stored.temperature), novelty)

    @property
    def outputs(self) -> tuple[GraphOutput, ...]:
        """See `Head`."""
        return (GraphOutput("probabilities", ("n", self.classes)),)

    def write(self, nodes: Nodes) -> None:
        """See `Head`."""
        logits = [nodes.logits(member, f"member{i}") for i, member in enumerate(self.members)]
        alone = len(logits) == 1
        shared = []
        for i, (member, name) in enumerate(zip(self.members, logits, strict=True)):
            temperature = nodes.scalar(f"member{i}.temperature", member.temperature)
            nodes.add("Div", [name, temperature], f"member{i}.tempered")
            own = "probabilities" if alone else f"member{i}.probabilities"
            nodes.add("Softmax", [f"member{i}.tempered"], own, axis=-1)
            if not alone:
                share = nodes.scalar(f"member{i}.share", member.share)
                shared.append(nodes.add("Mul", [own, share], f"member{i}.shared"))
        if not alone:
            nodes.add("Sum", shared, "mean")
            nodes.add("Max", ["mean", nodes.scalar("least_probability", LEAST_PROBABILITY)], "positive_mean")
            nodes.add("Log", ["positive_mean"], "log_mean")
            nodes.add("Div", ["log_mean", nodes.scalar("temperature", self.temperature)], "tempered")
            nodes.add("Softmax", ["tempered"], "probabilities", axis=-1)
        nodes.novelty(self.novelty, logits[0])

    def rounding(self, features: Array) -> tuple[Array, Array]:
        """See `Head`."""
        scores = [rounded.of_scores(member.map, features) for member in self.members]
        answers = self._rounding_of_probabilities(features, scores)
        return answers, rounded.of_logits(self.members[0].map, features, scores[0]).max(axis=1)

    def graph_allowance(self, features: Array, rounding: Array) -> dict[str, Array]:
        """See `Head`."""
        del features
        return {"probabilities": np.maximum(np.float32(GRAPH_PARITY), rounding)}

    def decides_otherwise(
        self, features: Array, computed: Mapping[str, NDArray[Any]], allowed: Mapping[str, Array]
    ) -> bool:
        """False: the only decision is in the probabilities."""
        del features, computed, allowed
        return False

    def compared(self, features: Array, bundled: Mapping[str, NDArray[Any]], rounding: Array) -> Comparison:
        """See `Head`."""
        served, given = self.scores(features).probabilities, bundled["probabilities"]
        other = int((given.argmax(axis=1) != served.argmax(axis=1))[told_apart(served)].sum())
        return Comparison("probabilities", served, given, np.maximum(BUNDLE_PARITY, rounding), other)

    def margins(self, features: Array) -> Array:
        """Returns the lead of the best label over the next."""
        return _lead(self.scores(features).probabilities)

    def uncertainty(self, output: SingleLabelOutput) -> Array:
        """See `Head`: 1 less the lead of the best label over the next."""
        return np.asarray(1 - _lead(output.probabilities))

    def measured(self, answered: Answered) -> Measured:
        """See `Head`."""
        return single_label.measure(answered)

    def settings(self) -> dict[str, Any]:
        """See `Head`."""
        return {}

    def described(self, modality: str) -> tuple[str, str]:
        """See `Head`."""
        return (
            f"A classifier of {modality} with {self.classes:,} labels",
            "`probabilities`\n  (batch, labels; calibrated)",
        )

    def _rounding_of_probabilities(self, features: Array, scores: list[Array]) -> Array:
        def own(member: Member, errors: Array) -> tuple[Array, Array]:
            logits = rounded.of_logits(member.map, features, errors) / np.float32(member.temperature)
            probabilities = softmax(member.map.logits(features) / np.float32(member.temperature))
            return probabilities, rounded.of_softmax(probabilities, logits)

        each = [own(member, errors) for member, errors in zip(self.members, scores, strict=True)]
        if len(each) == 1:
            return each[0][1]
        mean, off = np.zeros_like(scores[0]), np.zeros_like(scores[0])
        for member, (probabilities, errors) in zip(self.members, each, strict=True):
            mean += np.float32(member.share) * probabilities
            off += np.float32(member.share) * errors
        np.maximum(mean, np.float32(LEAST_PROBABILITY), out=mean)
        logarithms: Array = np.log(mean)
        tempered = softmax(logarithms / np.float32(self.temperature))
        return rounded.of_softmax(tempered, off / mean / np.float32(self.temperature))


def _lead(probabilities: Array) -> Array:
    best = np.partition(probabilities, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


class _StoredMember(msgspec.Struct, frozen=True):
    map: StoredMap
    temperature: float
    share: float


class _Stored(msgspec.Struct, frozen=True):
    """A stored head. It does not state its task: see `codec`."""

    format: int
    kind: str
    view: str
    members: tuple[_StoredMember, ...]
    temperature: float
    novelty: StoredNovelty
