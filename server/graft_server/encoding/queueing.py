"""The batching policy: from the queues, the limits and the time to the next batch. It has no thread and no clock.

The items that arrive while the device is busy are the next batch. A worker that becomes free takes its share of the
queue, up to the budget: under low load one item at once, under high load a full batch. Callers take turns, see
`fair_queue`. A batch is the item whose turn it is, the lone items of callers that ask for little, and those of the next
items in turn that are nearest to them in length, since attention pads a batch to its longest. An item is a text's token
ids, or an image or a clip; it counts by its length.

In a full queue the newest request of the caller that holds most gives way to one that asks for far less, and is
refused; where no caller holds far more than the newcomer, the newcomer is refused.

There are two lanes: predictions go first, and adaptation's embedding work is guaranteed a share of the device.
A running batch is not interrupted, so the next prediction waits for its end: while predictions come in, adaptation's
batches are short, and one worker is kept free of them.

A row is dropped when its turn comes, before it costs anything, if its caller has left, another part of its submission
has failed, or its deadline has passed; other rows are not affected. Of the next items in turn, those whose deadline
would pass before all are encoded go first: a caller with short deadlines has no more turns than others.

`next_batch` decides and changes nothing; `Queues` holds the state, and applies the decision. The caller passes the
time to both, in seconds on one clock of its choice.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from graft_server.domain.caller import Caller
from graft_server.domain.errors import OverloadError
from graft_server.encoding.fair_queue import (
    Cost,
    FairQueue,
    Reader,
    Row,
    Submission,
    Turn,
    asks_far_less,
    displaced,
)

Price = Callable[[int, int, int], float]
"""See `backbones.preprocessing.Preprocessor.price`."""


class Lane(enum.Enum):
    """The kind of caller that waits for the features."""

    PREDICT = 0
    ADAPT = 1


ADAPT_SHARE = 1 / 8
"""The part of the device's time that adaptation gets while predictions queue."""

BRIEF = 1 / 4
"""The size of adaptation's batches while predictions come in, as a part of the budget: one of 3 sentences takes a
third of the time of one of 12, and costs a sixth of the throughput. In a simulation of two workers at half load (times
of batches as measured), the slowest hundredth of predictions waits 3.1 times as long as without adaptation beside whole
batches, 1.3 times beside short ones, and 1.2 times where one worker is kept free besides."""
BRIEF_S = 5.0
"""How long after a prediction adaptation's batches stay small, in seconds."""
FREE_S = 0.5
"""How long after a prediction one worker is kept free of adaptation, in seconds."""

LOOKAHEAD = 4
"""How many batches' worth of the turns a batch is chosen from: on single sentences, with 40 of them queued, that is
worth 6% of the throughput over the order of arrival, as much as sorting all of them by length."""

QUANTUM = 1 / 4
"""How much a caller may ask for, as a part of the budget, to be served before its turn: a few sentences."""

SHARE = 1 / 2
"""The part of the queue that one identity may hold while others wait."""

_DRAIN_MEMORY = 0.9
"""How much of the drain rate's estimate is kept at each batch."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work may be queued or run at once."""

    budget: float
    """The cost of a batch, in the unit of its items' length; see `Price`."""
    workers: int
    """The number of batches that run at the same time."""
    queued_length: int = 400_000
    """Predictions beyond this length of all queued items are refused."""
    queued_requests: int = 4_096
    """Predictions beyond this many queued requests are refused."""

    @property
    def quantum(self) -> float:
        """See `QUANTUM`."""
        return QUANTUM * self.budget


Part = tuple[Submission, list[int]]
"""Items of one submission in a batch."""
Group = tuple[Reader, list[Part]]
"""The parts of a batch that have the same reader; they are next to each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What is encoded together."""

    groups: list[Group]
    lane: Lane
    length: int
    """The total length of its items."""

    def parts(self) -> Iterator[Part]:
        """All parts, in the order of the batch's rows."""
        return (part for _, parts in self.groups for part in parts)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The policy's choice among the next rows in turn of one lane. Each row is in one of the three lists."""

    lane: Lane
    taken: list[Row]
    """The rows of the batch."""
    kept: list[Row]
    """Rows that were examined and keep waiting, in this order."""
    dropped: list[Row]
    """Rows that no caller waits for."""
    expired: list[Submission]
    """The dropped rows whose deadline has passed; their callers receive an error."""
    quantum: float
    """See `Limits.quantum`."""
    cost: Cost
    """What a row costs its caller."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The next step of a free worker."""

    batch: Batch | None
    """None: no waiting row may run now."""
    choices: list[Choice]
    """One choice for each lane that was examined because its work waits and may run."""


@dataclass(slots=True, eq=False)
class Queues:
    """The queues in front of one encoder, and the policy's figures on past batches."""

    lanes: dict[Lane, FairQueue] = field(default_factory=lambda: {lane: FairQueue() for lane in Lane})
    last_prediction: float = -math.inf
    """When the last prediction came in."""
    adapt_batches: int = 0
    """The number of running batches of adaptation."""
    adapt_credit: float = 0.0
    """The length that adaptation is owed: its batch goes first once that is a budget's worth."""
    drain_rate: float = 0.0
    """The length that all workers together encode in a second; 0: unknown."""

    def put(self, submission: Submission, lane: Lane, now: float) -> None:
        """Queues all items of a submission."""
        if lane is Lane.PREDICT:
            self.last_prediction = now
        self.lanes[lane].put(submission)

    def withdraw(self, submission: Submission, lane: Lane) -> None:
        """Removes what waits of a submission."""
        self.lanes[lane].withdraw(submission)

    def begin(self, decision: Decision) -> None:
        """Removes the decided rows; the batch, if there is one, runs from here on."""
        for choice in decision.choices:
            self.lanes[choice.lane].serve(
                choice.taken, choice.kept, choice.dropped, choice.quantum, choice.cost
            )
        if decision.batch is not None:
            self.adapt_batches += decision.batch.lane is Lane.ADAPT

    def end(self, batch: Batch) -> None:
        """Notes that the batch has ended."""
        self.adapt_batches -= batch.lane is Lane.ADAPT

    def account(self, batch: Batch, seconds: float, workers: int) -> None:
        """Updates, from a finished batch, how fast work drains and the length that adaptation is owed."""
        rate = batch.length * workers / max(seconds, 1e-6)
        self.drain_rate = _DRAIN_MEMORY * self.drain_rate + (1 - _DRAIN_MEMORY) * rate
        if batch.lane is Lane.ADAPT:
            self.adapt_credit = max(0.0, self.adapt_credit - batch.length)
        elif self.lanes[Lane.ADAPT]:
            self.adapt_credit += batch.length * ADAPT_SHARE / (1 - ADAPT_SHARE)

    def clear(self) -> None:
        """Removes all rows."""
        for queue in self.lanes.values():
            queue.clear()


def admission(
    queues: Queues, limits: Limits, caller: Caller, length: float
) -> OverloadError | Submission | None:
    """Returns whether a request may be queued.

    Args:
        queues: What is queued.
        limits: How much may be.
        caller: Whose request it is.
        length: The length of its first part.

    Returns:
        None if there is room; a queued request that gives way to it, and is refused; or the error for the request.
    """
    waiting = queues.lanes[Lane.PREDICT]
    many = waiting.requests >= limits.queued_requests
    if not many and waiting.length < limits.queued_length:
        return queue_full(queues) if _holds_its_share(waiting, limits, caller) else None
    victim = displaced(waiting, caller, length)
    if victim is not None:
        return victim
    # What fills the queue was begun: a request that asks for far less is not refused for it, as long as such are few.
    return None if not many and asks_far_less(waiting, caller, length) else queue_full(queues)


def queue_full(queues: Queues) -> OverloadError:
    """Returns the error of a request that is refused, with the time that the queue takes to drain."""
    waiting = queues.lanes[Lane.PREDICT]
    drain_s = waiting.length / queues.drain_rate if queues.drain_rate else 1.0
    # In round numbers: the many refusals under load are then alike, and can be converted to an answer once.
    drain_s = float(f"{min(max(drain_s, 0.05), 30.0):.1g}")
    return OverloadError(
        f"The server has as many requests queued as it accepts, about {drain_s:g} s of work: try again after "
        "that, or add servers.",
        reason="QUEUE_FULL",
        retry_after_s=drain_s,
    )


def _holds_its_share(waiting: FairQueue, limits: Limits, caller: Caller) -> bool:
    """Whether an identity holds as much as one may while others wait. Calls without one are no caller together."""
    members = waiting.identities.members
    own = members.get(caller.identity)
    if not caller.identity or own is None or len(members) == 1:
        return False
    return own.length >= SHARE * limits.queued_length or len(own.unbegun) >= SHARE * limits.queued_requests


def next_batch(queues: Queues, limits: Limits, price: Price, now: float) -> Decision:
    """Returns the next step of a free worker. Changes nothing: `Queues.begin` does."""
    choices: list[Choice] = []
    for lane in _lanes(queues, limits):
        queue = queues.lanes[lane]
        if not queue:
            continue
        budget = _budget(lane, queues, limits, now)
        if not budget:
            continue
        choice = _choice(lane, queues, limits, budget=budget, price=price, now=now)
        choices.append(choice)
        if choice.taken:
            length = sum(len(submission.items[place]) for submission, place in choice.taken)
            return Decision(Batch(_grouped(choice.taken), lane, length), choices)
    return Decision(None, choices)


def idle_s(queues: Queues, now: float) -> float | None:
    """Returns how long a worker without a batch waits if nothing comes in; None: without limit.

    If adaptation's work waits, the worker is kept free for predictions, but not for ever.
    """
    if not queues.lanes[Lane.ADAPT]:
        return None
    return max(0.0, queues.last_prediction + FREE_S - now)


def _lanes(queues: Queues, limits: Limits) -> tuple[Lane, Lane]:
    """Returns the lanes in their order of service."""
    if queues.adapt_credit >= limits.budget:
        return (Lane.ADAPT, Lane.PREDICT)
    return (Lane.PREDICT, Lane.ADAPT)


def _budget(lane: Lane, queues: Queues, limits: Limits, now: float) -> float:
    """Returns the budget of a lane's next batch; 0: the lane has to wait."""
    since_s = now - queues.last_prediction
    if lane is Lane.PREDICT or since_s > BRIEF_S:
        return limits.budget
    most = max(1, limits.workers - 1)
    if since_s < FREE_S and queues.adapt_batches >= most:
        return 0.0
    return BRIEF * limits.budget


def _choice(lane: Lane, queues: Queues, limits: Limits, *, budget: float, price: Price, now: float) -> Choice:
    """Returns the choice among the next rows in turn; it takes none only if no caller waits for any."""
    costs: dict[int, float] = {}

    def cost(length: int) -> float:
        found = costs.get(length)
        if found is None:
            found = costs[length] = price(1, length, length)
        return found

    queue = queues.lanes[lane]
    waiting: list[Turn] = []
    lengths: list[int] = []
    dropped: list[Row] = []
    expired: dict[Submission, None] = {}
    total, enough = 0, LOOKAHEAD * limits.budget
    for turn in queue.in_turn(limits.quantum, cost):
        if total >= enough:
            break
        submission, place = turn.row
        if submission.is_over():
            dropped.append(turn.row)
        elif submission.deadline < now:
            dropped.append(turn.row)
            expired[submission] = None
        else:
            length = len(submission.items[place])
            waiting.append(turn)
            lengths.append(length)
            total += length
    # A worker's share of the queue, so that the others do not starve.
    share = math.ceil(queue.length / limits.workers)
    soon = now + enough / queues.drain_rate if queues.drain_rate else now
    due = _due(waiting, lengths, limits.budget)
    mates = _mates(lengths, due, _urgent(waiting, soon), budget=budget, share=share, price=price)
    taken: list[Row] = []
    kept: list[Row] = []
    for place, turn in enumerate(waiting):
        (taken if place in mates else kept).append(turn.row)
    return Choice(lane, taken, kept, dropped, list(expired), limits.quantum, cost)


def _due(turns: Sequence[Turn], lengths: Sequence[int], budget: float) -> list[int]:
    """Returns the rows whose turn it is: the first, those passed over too often, and lone ones beside others.

    Where only lone ones wait they are alike, and the policy is free to choose the best mates.
    """
    beside = not all(turn.sparse for turn in turns)
    due: list[int] = []
    total = 0
    for place, turn in enumerate(turns):
        if place == 0 or turn.late or (beside and turn.sparse and total < budget):
            due.append(place)
        total += lengths[place]
    return due


def _urgent(turns: Sequence[Turn], soon: float) -> list[int]:
    """Returns the rows whose deadline comes before all of these are encoded, the nearest first."""
    urgent = [place for place, (row, *_) in enumerate(turns) if row[0].deadline < soon]
    return sorted(urgent, key=lambda place: turns[place].row[0].deadline)


def _mates(
    lengths: Sequence[int],
    due: Sequence[int],
    urgent: Sequence[int],
    *,
    budget: float,
    share: int,
    price: Price,
) -> set[int]:
    """Returns the rows of one batch, within the budget and share.

    They are the rows that are due, then urgent ones, then those nearest in length to the longest that is due.
    """
    if len(lengths) < 2:
        return set(range(len(lengths)))
    near = max(lengths[place] for place in due)
    others = sorted(range(len(lengths)), key=lambda place: abs(lengths[place] - near))
    first = due[0]
    total = longest = lengths[first]
    mates = {first}
    for place in (*due, *urgent, *others):
        length = lengths[place]
        if place in mates or total + length > share:
            continue
        if price(len(mates) + 1, total + length, max(longest, length)) <= budget:
            mates.add(place)
            total += length
            longest = max(longest, length)
    return mates


def _grouped(rows: Sequence[Row]) -> list[Group]:
    groups: dict[Reader, dict[Submission, list[int]]] = {}
    for submission, place in rows:
        groups.setdefault(submission.reader, {}).setdefault(submission, []).append(place)
    return [(reader, list(parts.items())) for reader, parts in groups.items()]
