"""Rows that wait for the encoder, by caller, and the order of their turns.

Identities take turns, and within an identity its calls do: one `Rotation` above, and one in each `Identity`. Turns are
counted in cost, not in rows: the member that was served least goes next, and a member that joins starts where the
least served one is, so that nobody is owed a time of silence. That is start-time fair queueing (Goyal et al., 1996). A
turn is as long as a few batches, and longer where many wait: requests of some dozens of texts are then answered one
after the other, instead of all at the same late time.

A member that has little to ask and was not served more than others is sparse: a lone text beside bulk. Sparse members
go first, in the order in which they came, up to two thirds of what is served; the rest goes in turns, so that many of
them do not starve a large one. That is the rule of new flows in FQ-CoDel (RFC 8290), with a bound.

Within a call, rows are served in the order in which they came, up to the policy's choice of rows of like length.
"""

from __future__ import annotations

import bisect
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray

from graft_server.domain.caller import NOBODY, Caller
from graft_server.encoding.encoder import Features
from graft_server.encoding.tuned_layers import TunedLayers

Arrays = Mapping[str, NDArray[Any]]

Reader = Callable[[Features], Arrays]
"""Turns the features of n rows into arrays by name, each of shape (n, ...)."""

Cost = Callable[[int], float]
"""From the length of an item to what it costs alone."""

_REMEMBERED = 4_096
"""Members without waiting rows whose service is remembered, because it is ahead of the others'."""
SPARSE_WEIGHT = 2
"""How many times as much as the others sparse members are served at most."""
_MOST_LEAD = 4
"""How far sparse members get ahead at most, in quanta: who finds them alone waits no longer for them."""


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
    caller: Caller = NOBODY
    """Who waits for it."""
    opens: bool = True
    """Whether it is the first part of a request. Only such are refused, and counted as requests."""
    queued: int = field(init=False)
    """The number of waiting items."""

    def __post_init__(self) -> None:
        self.queued = len(self.items)


Row = tuple[Submission, int]
"""A waiting item: its submission and its place there."""


class Turn(NamedTuple):
    """A row, as its turn comes."""

    row: Row
    cost: float
    sparse: bool
    """Whether its call is sparse."""
    late: bool
    """Whether it is its call's oldest row and was passed over too often."""


@dataclass(slots=True, eq=False)
class Member:
    """One of those that take turns."""

    since: int
    """Members are numbered as they join."""
    served: float
    """The cost of what it was served, on the scale of its rotation."""
    length: int = 0
    """The total length of its waiting rows."""
    count: int = 0
    """The number of its waiting rows."""

    def in_turn(self, quantum: float, cost: Cost, *, sparse: bool) -> Iterator[Turn]:
        """Returns its rows in the order of their turns."""
        raise NotImplementedError


M = TypeVar("M", bound=Member)


@dataclass(slots=True, eq=False)
class Rotation(Generic[M]):
    """Members that take turns. It has those with waiting rows."""

    members: dict[Hashable, M] = field(default_factory=dict)
    """In the order in which they joined."""
    floor: float = 0.0
    """What the least served member was served: who joins starts here."""
    lead: float = 0.0
    """The cost that sparse members were served beyond what they may, in the others' cost."""
    _ahead: OrderedDict[Hashable, float] = field(default_factory=OrderedDict)
    """What members without waiting rows were served, as far as that is above the floor."""
    _joined: int = 0

    def join(self, key: Hashable, make: Callable[[int, float], M]) -> M:
        """Returns a member, which joins if it has no waiting row."""
        member = self.members.get(key)
        if member is None:
            self._joined += 1
            member = make(self._joined, max(self.floor, self._ahead.pop(key, 0.0)))
            self.members[key] = member
        return member

    def leave(self, key: Hashable) -> None:
        """Removes a member without waiting rows."""
        member = self.members.pop(key)
        if not self.members:
            self._ahead.clear()
            self.lead = 0.0
            self.floor = max(self.floor, member.served)
            return
        if member.served > self.floor:
            self._ahead[key] = member.served
        while self._ahead and (
            len(self._ahead) > _REMEMBERED or self._ahead[next(iter(self._ahead))] <= self.floor
        ):
            self._ahead.popitem(last=False)

    def is_sparse(self, member: M, quantum: float) -> bool:
        """Whether a member asks for little, and was not served more than the others."""
        return member.served <= self.floor and (member.length <= quantum or member.count == 1)

    def in_turn(self, quantum: float, cost: Cost) -> Iterator[Turn]:
        """Returns all rows in the order of their turns. Changes nothing."""
        sparse, others = self._kinds(quantum)
        first = chain.from_iterable(it.in_turn(quantum, cost, sparse=True) for it in sparse)
        second = _least_served(others, quantum, cost)
        lead = self.lead
        one, other = next(first, None), next(second, None)
        while one is not None and other is not None:
            if lead <= 0:
                yield one
                lead += one.cost / SPARSE_WEIGHT
                one = next(first, None)
            else:
                yield other
                lead -= other.cost
                other = next(second, None)
        for turn in (one, other):
            if turn is not None:
                yield turn
        yield from chain(first, second)

    def charge(self, costs: Mapping[Hashable, float], quantum: float) -> None:
        """Counts what members were served; call it before their rows are removed."""
        for key, cost in costs.items():
            member = self.members[key]
            self.lead += cost / SPARSE_WEIGHT if self.is_sparse(member, quantum) else -cost
            member.served += cost
        self.lead = min(max(self.lead, 0.0), _MOST_LEAD * quantum)

    def rise(self, quantum: float) -> None:
        """Raises the floor to the least served member that is not sparse: those would hold it down."""
        others = (it.served for it in self.members.values() if not self.is_sparse(it, quantum))
        self.floor = max(self.floor, min(others, default=self.floor))

    def _kinds(self, quantum: float) -> tuple[list[M], list[M]]:
        """Returns the sparse members, and the others."""
        sparse: list[M] = []
        others: list[M] = []
        floor = self.floor
        for it in self.members.values():
            # `is_sparse`, which would take twice as long for thousands of members.
            little = it.served <= floor and (it.length <= quantum or it.count == 1)
            (sparse if little else others).append(it)
        return sparse, others


TURN = 8
"""The least length of a turn, in quanta: two batches' worth, so that a batch is chosen from rows of several."""
LONG_TURN = 32
"""The greatest length of a turn, in quanta."""
_LONGER = 1
"""The quanta of a turn for each member that waits for one, within these bounds. In a simulation of eight callers with
16 requests of 64 texts each in flight, none is answered within 20 s where turns are short, and 84 are where they are
long; beside eight requests of thousands, one of 16 texts is answered after 0.55 s where turns are short, and 1.6 s
where they are long. This gives 84, and 0.64 s."""


def _least_served(members: Sequence[Member], quantum: float, cost: Cost) -> Iterator[Turn]:
    """Returns the rows of all members: a turn's worth of the one that was served least, then of the next one."""
    length = max(1.0, quantum * min(LONG_TURN, max(TURN, _LONGER * len(members))))
    heap = [(it.served // length, it.since, it.served, it) for it in members]
    heapq.heapify(heap)
    begun: dict[int, Iterator[Turn]] = {}
    while heap:
        _, since, served, member = heap[0]
        if since not in begun:
            begun[since] = member.in_turn(quantum, cost, sparse=False)
        turn = next(begun[since], None)
        if turn is None:
            heapq.heappop(heap)
        else:
            yield turn
            served += turn.cost
            heapq.heapreplace(heap, (served // length, since, served, member))


PASSED_OVER = 4
"""How many batches may take later rows of a call and not its oldest one."""


@dataclass(slots=True, eq=False)
class Call(Member):
    """The waiting rows of one call."""

    rows: deque[Row] = field(default_factory=deque)
    passed: int = 0
    """How many batches in a row took later rows and not the oldest one."""

    def in_turn(self, quantum: float, cost: Cost, *, sparse: bool) -> Iterator[Turn]:  # noqa: ARG002
        """See `Member.in_turn`."""
        late = self.passed >= PASSED_OVER
        for row in self.rows:
            submission, place = row
            yield Turn(row, cost(len(submission.items[place])), sparse, late)
            late = False


@dataclass(slots=True, eq=False)
class Identity(Member):
    """The waiting calls of one identity."""

    calls: Rotation[Call] = field(default_factory=Rotation)
    unbegun: list[tuple[bool, int, int, Submission]] = field(default_factory=list)
    """The first parts of requests of which no row was taken yet: whether it has several rows, its length, its number,
    and itself; sorted."""

    _longest: int | None = None
    """The length of its largest call of several rows; None: not known."""

    def longest(self) -> int:
        """Returns the length of its largest call of several rows. A full queue asks that for each newcomer."""
        if self._longest is None:
            self._longest = max((it.length for it in self.calls.members.values() if it.count > 1), default=0)
        return self._longest

    def put(self, call: Call) -> None:
        """Notes that a call has more rows."""
        if self._longest is not None and call.count > 1:
            self._longest = max(self._longest, call.length)

    def serve(self) -> None:
        """Notes that its calls have fewer rows."""
        self._longest = None

    def in_turn(self, quantum: float, cost: Cost, *, sparse: bool) -> Iterator[Turn]:  # noqa: ARG002
        """See `Member.in_turn`: its calls may be sparse whether it is or not."""
        return self.calls.in_turn(quantum, cost)


@dataclass(slots=True, eq=False)
class FairQueue:
    """The rows of one lane."""

    identities: Rotation[Identity] = field(default_factory=Rotation)
    length: int = 0
    """The total length of the rows."""
    requests: int = 0
    """The requests whose first part has rows here."""
    _entries: dict[Submission, tuple[bool, int, int, Submission]] = field(default_factory=dict)
    """The entries in `Identity.unbegun`."""
    _numbers: int = 0

    def __bool__(self) -> bool:
        return bool(self.identities.members)

    def put(self, submission: Submission) -> None:
        """Queues all items, by length: batch-mates of one length waste nothing on attention's padding."""
        items = submission.items
        order: Iterable[int] = range(len(items))
        if len(items) > 2:
            order = sorted(order, key=lambda row: len(items[row]))
        length = sum(map(len, items))
        caller = submission.caller
        identity = self.identities.join(caller.identity, Identity)
        call = identity.calls.join(caller.call, Call)
        call.rows.extend((submission, row) for row in order)
        for member in (identity, call):
            member.length += length
            member.count += len(items)
        identity.put(call)
        self.length += length
        if submission.opens:
            self.requests += 1
            self._numbers += 1
            entry = (len(items) > 1, length, self._numbers, submission)
            self._entries[submission] = entry
            bisect.insort(identity.unbegun, entry)

    def in_turn(self, quantum: float, cost: Cost) -> Iterator[Turn]:
        """Returns all rows in the order of their turns. Changes nothing."""
        return self.identities.in_turn(quantum, cost)

    def call(self, caller: Caller) -> Call | None:
        """Returns what waits of a call."""
        identity = self.identities.members.get(caller.identity)
        return None if identity is None else identity.calls.members.get(caller.call)

    def serve(
        self, taken: Sequence[Row], kept: Sequence[Row], dropped: Sequence[Row], quantum: float, cost: Cost
    ) -> None:
        """Removes taken and dropped rows, and charges the callers of the taken ones.

        Args:
            taken: Rows of a batch.
            kept: Rows that were examined and keep waiting. Those of a call are, together with its taken and dropped
                rows, the first that it has.
            dropped: Rows that no caller waits for.
            quantum: See `in_turn`.
            cost: See `in_turn`.
        """
        served, kept_of, gone = _by_submission(taken), _by_submission(kept), _by_submission(dropped)
        self._charge(served, quantum, cost)
        examined: dict[Call, int] = {}
        keep: dict[Call, list[Row]] = {}
        # Submissions of a call are in the order of its rows, and the kept ones come in that order.
        for submission, places in chain(kept_of.items(), served.items(), gone.items()):
            call = self._call(submission.caller)
            examined[call] = examined.get(call, 0) + len(places)
            keep.setdefault(call, [])
        for submission, places in kept_of.items():
            keep[self._call(submission.caller)] += [(submission, place) for place in places]
        for call, count in examined.items():
            submission, place = call.rows[0]
            for _ in range(count):
                call.rows.popleft()
            call.rows.extendleft(reversed(keep[call]))
            if len(keep[call]) < count:  # some were taken, or nobody waits for them
                call.passed = call.passed + 1 if keep[call] and keep[call][0] == (submission, place) else 0
        for submission, places in chain(served.items(), gone.items()):
            self._left(submission, places)
        self._tidy({it.caller for it in chain(kept_of, served, gone)}, quantum)

    def withdraw(self, submission: Submission) -> None:
        """Removes all rows of a submission."""
        if not submission.queued:
            return
        call = self._call(submission.caller)
        places = [place for waiting, place in call.rows if waiting is submission]
        call.rows = deque(row for row in call.rows if row[0] is not submission)
        self._left(submission, places)
        self._tidy([submission.caller], 0.0)

    def clear(self) -> None:
        """Removes all rows."""
        for identity in self.identities.members.values():
            for call in identity.calls.members.values():
                for submission, _ in call.rows:
                    submission.queued = 0
        self.identities = Rotation()
        self._entries.clear()
        self.length = self.requests = 0

    def _call(self, caller: Caller) -> Call:
        return self.identities.members[caller.identity].calls.members[caller.call]

    def _charge(self, taken: Mapping[Submission, Sequence[int]], quantum: float, cost: Cost) -> None:
        by_identity: dict[Hashable, float] = {}
        by_call: dict[Hashable, dict[Hashable, float]] = {}
        for submission, places in taken.items():
            caller = submission.caller
            price = sum(cost(len(submission.items[place])) for place in places)
            by_identity[caller.identity] = by_identity.get(caller.identity, 0.0) + price
            calls = by_call.setdefault(caller.identity, {})
            calls[caller.call] = calls.get(caller.call, 0.0) + price
        self.identities.charge(by_identity, quantum)
        for identity, costs in by_call.items():
            self.identities.members[identity].calls.charge(costs, quantum)

    def _left(self, submission: Submission, places: Sequence[int]) -> None:
        length = sum(len(submission.items[place]) for place in places)
        identity = self.identities.members[submission.caller.identity]
        for member in (identity, identity.calls.members[submission.caller.call]):
            member.length -= length
            member.count -= len(places)
        self.length -= length
        entry = self._entries.pop(submission, None)
        if entry is not None:
            del identity.unbegun[bisect.bisect_left(identity.unbegun, entry)]
        submission.queued -= len(places)
        if submission.queued == 0 and submission.opens:
            self.requests -= 1

    def _tidy(self, callers: Iterable[Caller], quantum: float) -> None:
        """Removes callers without waiting rows, and raises the floors."""
        touched = set()
        for caller in callers:
            identity = self.identities.members[caller.identity]
            touched.add(caller.identity)
            if not identity.calls.members[caller.call].rows:
                identity.calls.leave(caller.call)
        for key in touched:
            identity = self.identities.members[key]
            identity.serve()
            if identity.calls.members:
                identity.calls.rise(quantum)
            else:
                self.identities.leave(key)
        self.identities.rise(quantum)


def _by_submission(rows: Iterable[Row]) -> dict[Submission, list[int]]:
    found: dict[Submission, list[int]] = {}
    for submission, place in rows:
        places = found.get(submission)
        if places is None:
            found[submission] = [place]
        else:
            places.append(place)
    return found


FAR_MORE = 2
"""Who holds more than so many times what a newcomer asks for gives way to it in a full queue."""


def displaced(waiting: FairQueue, caller: Caller, length: float) -> Submission | None:
    """Returns the request that gives way to a newcomer's in a full queue; None: there is none.

    It is the newest of the largest requests, of which nothing was encoded yet, of the identity that holds far more
    than the newcomer's; and if there is none, one of its own identity that is far larger than the newcomer.
    Requests of one row do not give way to others of their identity: they differ in their text's length alone.

    Args:
        waiting: What waits.
        caller: The newcomer.
        length: The length of what it asks for.
    """
    own = waiting.identities.members.get(caller.identity)
    mine = length + (0 if own is None else own.length)
    others = [it for it in waiting.identities.members.values() if it is not own and it.unbegun]
    largest = max(others, key=lambda it: it.length, default=None)
    if largest is not None and largest.length > FAR_MORE * mine:
        return largest.unbegun[-1][-1]
    if own is None or not own.unbegun:
        return None
    several, theirs, _, submission = own.unbegun[-1]
    call = own.calls.members.get(caller.call)
    mine = length + (0 if call is None else call.length)
    return submission if several and theirs > FAR_MORE * mine else None


def asks_far_less(waiting: FairQueue, caller: Caller, length: float) -> bool:
    """Returns whether somebody else holds far more than a newcomer asks for; see `displaced` for the arguments."""
    own = waiting.identities.members.get(caller.identity)
    mine = length + (0 if own is None else own.length)
    if any(it.length > FAR_MORE * mine for it in waiting.identities.members.values() if it is not own):
        return True
    if own is None:
        return False
    call = own.calls.members.get(caller.call)
    return own.longest() > FAR_MORE * (length + (0 if call is None else call.length))
