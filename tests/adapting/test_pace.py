"""How far a commit says it is, and how long it says that it will still take."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from graft_server.adapting.publishing.pace import SETTLED_S, SHORTEST_S, Pace, Part, Speeds
from graft_server.domain.stream import Progress
from graft_server.jobs.job import WAITING


@dataclass
class Bench:
    """A pace, and a clock that moves when it is told to."""

    now: float = 100.0
    told: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pace = Pace("c", self.told.append, lambda: self.now)

    def tell(self, part: str, share: float, stage: str = "", **more: float) -> Progress:
        self.pace.told(part, share, Progress(stage=stage or part, eta_s=more.get("eta_s")))
        return self.told[-1]


def test_the_share_never_falls_whatever_comes_of_expectations():
    it = Bench()
    it.pace.plan({"encoding": Part(10.0, even=True), "training": Part(10.0)})
    for share in (0.0, 0.1, 0.4, 1.0):
        it.now += 20
        it.tell("encoding", share)
    for share in (0.0, 0.5):
        it.now += 1
        it.tell("training", share)
    it.pace.plan({"encoding": Part(10.0, even=True), "training": Part(10.0)})  # it is trained again
    for part, share in (("encoding", 1.0), ("training", 0.0), ("training", 0.7), ("training", 1.0)):
        it.now += 1
        it.tell(part, share)
    shares = [one.fraction for one in it.told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.99 < shares[-1] < 1


def test_what_was_done_before_the_commit_is_no_work_of_it():
    it = Bench()
    it.pace.plan({"encoding": Part(10.0, even=True), "training": Part(10.0)})
    assert it.tell("encoding", 0.9).fraction == 0
    it.now += 1
    assert 0.04 < it.tell("encoding", 1.0).fraction < 0.1


def test_nothing_is_said_about_the_end_before_it_is_known():
    it = Bench()
    it.pace.plan({"encoding": Part(100.0, even=True), "training": Part(20.0)})
    it.tell("encoding", 0.0)
    it.now += SETTLED_S / 2
    assert it.tell("encoding", 0.25).eta_s is None
    it.now += SETTLED_S / 2
    told = it.tell("encoding", 0.5)
    assert told.elapsed_s == pytest.approx(SETTLED_S)
    assert told.eta_s == pytest.approx(SETTLED_S + 20)  # half of it took as long; 100 s was an expectation


def test_what_is_left_counts_down_and_does_not_run_away():
    it = Bench()
    it.pace.plan({"training": Part(20.0)})
    it.tell("training", 0.0)
    it.now += 20
    first = it.tell("training", 0.5).eta_s
    assert first is not None
    assert 10 < first < 20
    it.now += 4
    assert it.tell("training", 0.5).eta_s == pytest.approx(first - 4)
    it.now += first
    assert it.tell("training", 0.5).eta_s == pytest.approx(first / 2)  # late, and nobody knows by how much
    it.now += 2 * SETTLED_S
    assert it.tell("training", 0.5).eta_s is None


def test_a_little_uneven_work_is_little_evidence():
    it = Bench()
    it.pace.plan({"training": Part(20.0)})
    it.tell("training", 0.0)
    it.now += 10
    told = it.tell("training", 0.01)
    assert told.eta_s is not None
    assert 20 < told.eta_s < 100  # by that share alone it were 990 s


def test_what_a_part_says_itself_counts_and_a_guess_does_not():
    it = Bench()
    it.pace.plan({"training": Part(1.0), "tuning": Part(300.0, known=False)})
    it.tell("training", 0.0)
    it.now += 15
    assert it.tell("training", 1.0).eta_s is None
    it.now += 1
    assert it.tell("tuning", 0.1, eta_s=42.0).eta_s == 42.0


def test_while_it_waits_for_a_worker_nothing_is_said_about_the_end_and_no_time_counts():
    it = Bench()
    it.pace.plan({"training": Part(20.0)})
    it.now += 60
    told = it.tell("training", 0.0, WAITING)
    assert (told.stage, told.eta_s, told.fraction) == (WAITING, None, 0)
    it.now += 100
    it.tell("training", 0.0, "reading")
    it.now += 10
    assert it.tell("training", 0.5, "selecting").eta_s == pytest.approx(10, rel=0.05)


def test_the_same_stage_is_told_of_no_more_often_than_needed():
    it = Bench()
    it.pace.plan({"encoding": Part(10.0, even=True)})
    for place in range(100):
        it.now += SHORTEST_S / 10
        it.tell("encoding", place / 100)
    assert len(it.told) <= 12
    it.tell("encoding", 1.0, "selecting")
    assert it.told[-1].stage == "selecting"


def test_speeds_are_what_was_measured():
    speeds = Speeds()
    usual = speeds.encoding_s("e", 1000)
    speeds.encoded("e", 1000, 2 * usual)
    assert speeds.encoding_s("e", 500) == pytest.approx(usual)
    assert speeds.encoding_s("f", 1000) == usual
    speeds.encoded("e", 3, 1000.0)  # too few to tell
    assert speeds.encoding_s("e", 500) == pytest.approx(usual)
    for _ in range(20):
        speeds.trained(10.0, 30.0)
    assert speeds.training_s(10.0) == pytest.approx(30.0, rel=0.01)
