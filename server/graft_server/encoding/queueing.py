"""The batching policy: from what is queued, the limits and the time to the next batch. No thread, no clock in here.

Whatever arrives while the device is busy is the next batch. A worker that becomes free takes its share of what is
queued, up to the budget: under low load that is one item at once, under high load a full batch: the oldest item,
and of those behind it the ones nearest to it in length, since attention pads a batch to its longest. An item is a
text's token ids, or an image or a clip; what it counts for is its length.

Work of two lanes is queued: predictions go first, and adaptation's embedding work is guaranteed a share of the device.
A batch that runs is not called back, so whoever comes next waits for its end: while predictions come in, adaptation's
batches are short, and one worker is kept free of them.

A row whose caller has left, of which another part failed, or whose deadline has passed is dropped when its turn comes,
before it costs anything; its batch-mates are not touched.

`next_batch` decides and changes nothing; `Queues` is what it decides on, and changes by what was decided. Both are
told the time, in seconds on one clock of the caller's choice.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from graft_server.domain.errors import OverloadError
from graft_server.encoding.encoder import Features
from graft_server.encoding.tuned_layers import TunedLayers

Arrays = Mapping[str, NDArray[Any]]

Reader = Callable[[Features], Arrays]
"""Makes of the features of n rows arrays by name, each of shape (n, ...)."""

Price = Callable[[int, int, int], float]
"""See `backbones.preprocessing.Preprocessor.price`."""


class Lane(enum.Enum):
    """Who waits for the features."""

    PREDICT = 0
    ADAPT = 1


ADAPT_SHARE = 1 / 8
"""The part of the device's time that adaptation gets while predictions queue."""

BRIEF = 1 / 4
"""How large adaptation's batches may be while predictions come in, as a part of the budget: one of 3 sentences takes a
third of the time of one of 12, and costs a sixth of the throughput. In a simulation of two workers at half load (times
of batches as measured), the slowest hundredth of predictions waits 3.1 times as long as without adaptation beside whole
batches, 1.3 times beside short ones, and 1.2 times where one worker is kept free besides."""
BRIEF_S = 5.0
"""How long after a prediction they are so small."""
FREE_S = 0.5
"""How long after a prediction one worker is kept free of adaptation."""

LOOKAHEAD = 4
"""How many batches' worth of the queue a batch is chosen from: on single sentences, with 40 of them queued, that is
worth 6% of the throughput over taking them as they came, as much as sorting all of them by length."""

_DRAIN_MEMORY = 0.9
"""How much of the drain rate's estimate is kept at each batch."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work may be queued or run at once."""

    budget: float
    """The cost of a batch, in the unit of its items' length; see `Price`."""
    workers: int
    """Batches that run at the same time."""
    queued_length: int = 400_000
    """Predictions beyond this length of all queued items are refused."""
    queued_requests: int = 4_096
    """Predictions beyond this many queued requests are refused."""


@dataclass(slots=True, eq=False)
class Submission:
    """Items of one caller: they ride in one batch or in several."""

    items: Sequence[Sized]
    """What the encoder takes, n >= 1."""
    reader: Reader
    tuned: TunedLayers | None
    """The tuned layers that the items go through; None: the frozen ones."""
    deadline: float
    """Items that are not in a batch by then never are."""
    is_over: Callable[[], bool]
    """Whether nobody waits for it any more: its caller left, or it is answered or failed."""
    queued: int = field(init=False)
    """Items that wait."""

    def __post_init__(self) -> None:
        self.queued = len(self.items)


Row = tuple[Submission, int]
"""An item that waits: which one of which submission."""

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
    """Of all its items."""

    def parts(self) -> Iterator[Part]:
        """All parts, in the order of the batch's rows."""
        return (part for _, parts in self.groups for part in parts)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What is to become of the rows at the head of one lane's queue. Each row is in one of the three lists."""

    lane: Lane
    taken: list[Row]
    """They are the batch."""
    kept: list[Row]
    """They were looked at, and wait on, in this order."""
    dropped: list[Row]
    """Nobody waits for them."""
    expired: list[Submission]
    """Those of the dropped whose deadline has passed; their callers are to hear of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a worker that is free does next."""

    batch: Batch | None
    """None: nothing waits that may run now."""
    choices: list[Choice]
    """One for each lane that was looked at because work of it waits and may run."""


@dataclass(slots=True, eq=False)
class Queue:
    """The rows of one lane, in the order that they are looked at."""

    lane: Lane
    rows: deque[Row] = field(default_factory=deque)
    length: int = 0
    """Of all rows."""
    requests: int = 0
    """Submissions that have rows here."""

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
        """Takes out what a choice takes and drops."""
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
        """Takes out everything."""
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
    """What is queued in front of one encoder, and what the policy remembers of the batches that ran."""

    lanes: dict[Lane, Queue] = field(default_factory=lambda: {lane: Queue(lane) for lane in Lane})
    last_prediction: float = -math.inf
    """When the last prediction came in."""
    adapt_batches: int = 0
    """Batches of adaptation that run."""
    adapt_credit: float = 0.0
    """The length that adaptation is owed: a batch of it goes first once that is a budget's worth."""
    drain_rate: float = 0.0
    """The length that all workers together encode in a second; 0: not known."""

    def put(self, submission: Submission, lane: Lane, now: float) -> None:
        """Queues all items of a submission."""
        if lane is Lane.PREDICT:
            self.last_prediction = now
        self.lanes[lane].put(submission)

    def begin(self, decision: Decision) -> None:
        """Takes out what was decided on; the batch, if there is one, runs from here on."""
        for choice in decision.choices:
            self.lanes[choice.lane].apply(choice)
        if decision.batch is not None:
            self.adapt_batches += decision.batch.lane is Lane.ADAPT

    def end(self, batch: Batch) -> None:
        """The batch does not run any more."""
        self.adapt_batches -= batch.lane is Lane.ADAPT

    def account(self, batch: Batch, seconds: float, workers: int) -> None:
        """Learns from a batch that ran how fast work drains, and what adaptation is owed."""
        rate = batch.length * workers / max(seconds, 1e-6)
        self.drain_rate = _DRAIN_MEMORY * self.drain_rate + (1 - _DRAIN_MEMORY) * rate
        if batch.lane is Lane.ADAPT:
            self.adapt_credit = max(0.0, self.adapt_credit - batch.length)
        elif self.lanes[Lane.ADAPT].rows:
            self.adapt_credit += batch.length * ADAPT_SHARE / (1 - ADAPT_SHARE)

    def clear(self) -> None:
        """Takes out all rows."""
        for queue in self.lanes.values():
            queue.clear()


def refusal(queues: Queues, limits: Limits) -> OverloadError | None:
    """Why a prediction is not queued; None where there is room for it."""
    queue = queues.lanes[Lane.PREDICT]
    if queue.length < limits.queued_length and queue.requests < limits.queued_requests:
        return None
    drain_s = queue.length / queues.drain_rate if queues.drain_rate else 1.0
    # In round numbers: whoever turns many refusals into answers can do so once for all that are alike.
    drain_s = float(f"{min(max(drain_s, 0.05), 30.0):.1g}")
    return OverloadError(
        f"The server has as many requests queued as it accepts, about {drain_s:g} s of work: try again after "
        "that, or add servers.",
        reason="QUEUE_FULL",
        retry_after_s=drain_s,
    )


def next_batch(queues: Queues, limits: Limits, price: Price, now: float) -> Decision:
    """What a worker that is free does next. Changes nothing: `Queues.begin` does."""
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
    """How long a worker without a batch waits, if nothing comes in; None: for as long as nothing does.

    Where adaptation's work waits, the worker is kept free for predictions, and not for ever.
    """
    if not queues.lanes[Lane.ADAPT].rows:
        return None
    return max(0.0, queues.last_prediction + FREE_S - now)


def _lanes(queues: Queues, limits: Limits) -> tuple[Lane, Lane]:
    """Who goes first."""
    if queues.adapt_credit >= limits.budget:
        return (Lane.ADAPT, Lane.PREDICT)
    return (Lane.PREDICT, Lane.ADAPT)


def _budget(lane: Lane, queues: Queues, limits: Limits, now: float) -> float:
    """What the next batch of a lane may cost; 0: it has to wait."""
    since_s = now - queues.last_prediction
    if lane is Lane.PREDICT or since_s > BRIEF_S:
        return limits.budget
    most = max(1, limits.workers - 1)
    if since_s < FREE_S and queues.adapt_batches >= most:
        return 0.0
    return BRIEF * limits.budget


def _choice(queue: Queue, budget: float, limits: Limits, price: Price, now: float) -> Choice:
    """What becomes of the rows at the head of a queue; it takes none only where nobody waits for any."""
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
    """Which of the rows ride together: the first, and those nearest to it in length, within the budget and share."""
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
