"""The batching policy: from the queues, the limits and the time to the next batch. It has no thread and no clock.

The items that arrive while the device is busy are the next batch. A worker that becomes free takes its share of the
queue, up to the budget: under low load one item at once, under high load a full batch. A batch is the oldest item
and the later items nearest to it in length, since attention pads a batch to its longest. An item is a
text's token ids, or an image or a clip; it counts by its length.

There are two lanes: predictions go first, and adaptation's embedding work is guaranteed a share of the device.
A running batch is not interrupted, so the next prediction waits for its end: while predictions come in, adaptation's
batches are short, and one worker is kept free of them.

A row is dropped when its turn comes, before it costs anything, if its caller has left, another part of its submission
has failed, or its deadline has passed; other rows are not affected.

`next_batch` decides and changes nothing; `Queues` holds the state, and applies the decision. The caller passes the
time to both, in seconds on one clock of its choice.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from graft_server.domain.errors import OverloadError
from graft_server.encoding.encoder import Features
from graft_server.encoding.tuned_layers import TunedLayers

Arrays = Mapping[str, NDArray[Any]]

Reader = Callable[[Features], Arrays]
"""Turns the features of n rows into arrays by name, each of shape (n, ...)."""

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
"""How many batches' worth of the queue a batch is chosen from: on single sentences, with 40 of them queued, that is
worth 6% of the throughput over the order of arrival, as much as sorting all of them by length."""

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


@dataclass(slots=True, eq=False)
class Submission:
    """Items of one caller, in one batch or several."""

    items: Sequence[Sized]
    """The encoder's items, n >= 1."""
    reader: Reader
    tuned: TunedLayers | None
    """The tuned layers that the items go through; None: the frozen ones."""
    deadline: float
    """Items that are not in a batch by then are dropped."""
    is_over: Callable[[], bool]
    """Whether no caller waits for it any more: the caller left, or it is answered or failed."""
    caller: Hashable = None
    """Who waits for it; None: not known."""
    queued: int = field(init=False)
    """The number of waiting items."""

    def __post_init__(self) -> None:
        self.queued = len(self.items)


Row = tuple[Submission, int]
"""A waiting item: its submission and its place there."""

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
    """The policy's choice for the rows at the head of one lane's queue. Each row is in one of the three lists."""

    lane: Lane
    taken: list[Row]
    """The rows of the batch."""
    kept: list[Row]
    """Rows that were examined and keep waiting, in this order."""
    dropped: list[Row]
    """Rows that no caller waits for."""
    expired: list[Submission]
    """The dropped rows whose deadline has passed; their callers receive an error."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The next step of a free worker."""

    batch: Batch | None
    """None: no waiting row may run now."""
    choices: list[Choice]
    """One choice for each lane that was examined because its work waits and may run."""


@dataclass(slots=True, eq=False)
class Queue:
    """The rows of one lane, in the order in which they are examined."""

    lane: Lane
    rows: deque[Row] = field(default_factory=deque)
    length: int = 0
    """The total length of the rows."""
    requests: int = 0
    """The submissions that have rows here."""

    def put(self, submission: Submission) -> None:
        """Queues all items, by length: batch-mates of one length waste nothing on attention's padding."""
        items = submission.items
        order: Iterable[int] = range(len(items))
        if len(items) > 2:
            order = sorted(order, key=lambda row: len(items[row]))
        self.rows.extend((submission, row) for row in order)
        self.length += sum(map(len, items))
        self.requests += 1

    def apply(self, choice: Choice) -> None:
        """Removes the rows that a choice takes or drops."""
        looked_at = len(choice.taken) + len(choice.kept) + len(choice.dropped)
        if looked_at == len(self.rows):
            self.rows = deque(choice.kept)
        else:
            for _ in range(looked_at):
                self.rows.popleft()
            self.rows.extendleft(reversed(choice.kept))
        for row in choice.taken:
            self._left(row)
        for row in choice.dropped:
            self._left(row)

    def clear(self) -> None:
        """Removes all rows of the queue."""
        self.rows.clear()
        self.length = self.requests = 0

    def _left(self, row: Row) -> None:
        submission, place = row
        self.length -= len(submission.items[place])
        submission.queued -= 1
        if submission.queued == 0:
            self.requests -= 1


@dataclass(slots=True, eq=False)
class Queues:
    """The queues in front of one encoder, and the policy's figures on past batches."""

    lanes: dict[Lane, Queue] = field(default_factory=lambda: {lane: Queue(lane) for lane in Lane})
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

    def begin(self, decision: Decision) -> None:
        """Removes the decided rows; the batch, if there is one, runs from here on."""
        for choice in decision.choices:
            self.lanes[choice.lane].apply(choice)
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
        elif self.lanes[Lane.ADAPT].rows:
            self.adapt_credit += batch.length * ADAPT_SHARE / (1 - ADAPT_SHARE)

    def clear(self) -> None:
        """Removes all rows."""
        for queue in self.lanes.values():
            queue.clear()


def refusal(queues: Queues, limits: Limits) -> OverloadError | None:
    """Returns why a prediction is not queued; None if there is room for it."""
    queue = queues.lanes[Lane.PREDICT]
    if queue.length < limits.queued_length and queue.requests < limits.queued_requests:
        return None
    drain_s = queue.length / queues.drain_rate if queues.drain_rate else 1.0
    # In round numbers: the many refusals under load are then alike, and can be converted to an answer once.
    drain_s = float(f"{min(max(drain_s, 0.05), 30.0):.1g}")
    return OverloadError(
        f"The server has as many requests queued as it accepts, about {drain_s:g} s of work: try again after "
        "that, or add servers.",
        reason="QUEUE_FULL",
        retry_after_s=drain_s,
    )


def next_batch(queues: Queues, limits: Limits, price: Price, now: float) -> Decision:
    """Returns the next step of a free worker. Changes nothing: `Queues.begin` does."""
    choices: list[Choice] = []
    for lane in _lanes(queues, limits):
        queue = queues.lanes[lane]
        if not queue.rows:
            continue
        budget = _budget(lane, queues, limits, now)
        if not budget:
            continue
        choice = _choice(queue, budget, limits, price, now)
        choices.append(choice)
        if choice.taken:
            length = sum(len(submission.items[place]) for submission, place in choice.taken)
            return Decision(Batch(_grouped(choice.taken), lane, length), choices)
    return Decision(None, choices)


def idle_s(queues: Queues, now: float) -> float | None:
    """Returns how long a worker without a batch waits if nothing comes in; None: without limit.

    If adaptation's work waits, the worker is kept free for predictions, but not for ever.
    """
    if not queues.lanes[Lane.ADAPT].rows:
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


def _choice(queue: Queue, budget: float, limits: Limits, price: Price, now: float) -> Choice:
    """Returns the choice for the rows at the head of a queue; it takes none only if no caller waits for any."""
    waiting: list[Row] = []
    lengths: list[int] = []
    dropped: list[Row] = []
    expired: dict[Submission, None] = {}
    total, enough = 0, LOOKAHEAD * limits.budget
    for row in queue.rows:
        if total >= enough:
            break
        submission, place = row
        if submission.is_over():
            dropped.append(row)
        elif submission.deadline < now:
            dropped.append(row)
            expired[submission] = None
        else:
            length = len(submission.items[place])
            waiting.append(row)
            lengths.append(length)
            total += length
    # A worker's share of the queue, so that the others do not starve.
    share = math.ceil(queue.length / limits.workers)
    mates = _mates(lengths, budget, share, price)
    taken: list[Row] = []
    kept: list[Row] = []
    for place, row in enumerate(waiting):
        (taken if place in mates else kept).append(row)
    return Choice(queue.lane, taken, kept, dropped, list(expired))


def _mates(lengths: Sequence[int], budget: float, share: int, price: Price) -> set[int]:
    """Returns the rows of one batch: the first, and those nearest to it in length, within the budget and share."""
    if len(lengths) < 2:
        return set(range(len(lengths)))
    first = total = longest = lengths[0]
    mates = {0}
    for place in sorted(range(1, len(lengths)), key=lambda place: abs(lengths[place] - first)):
        length = lengths[place]
        together = price(len(mates) + 1, total + length, max(longest, length))
        if together <= budget and total + length <= share:
            mates.add(place)
            total += length
            longest = max(longest, length)
    return mates


def _grouped(rows: Sequence[Row]) -> list[Group]:
    groups: dict[Reader, dict[Submission, list[int]]] = {}
    for submission, place in rows:
        groups.setdefault(submission.reader, {}).setdefault(submission, []).append(place)
    return [(reader, list(parts.items())) for reader, parts in groups.items()]
