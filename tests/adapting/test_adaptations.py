"""All adaptations of a server, as they follow the catalogue: on a real store and with the real encoder."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from tests.adapting.conftest import Bench

from graft_server.adapting import adaptations
from graft_server.adapting.intake.writer_stream import Incoming
from graft_server.adapting.limits import AdaptationLimits
from graft_server.adapting.publishing.fine_tuning import Plan
from graft_server.adapting.publishing.pace import Pace
from graft_server.adapting.publishing.queue import CANCELLED
from graft_server.adapting.session import Session
from graft_server.adapting.work import Reason, Work
from graft_server.domain.adaptation import AdaptationSettings, FineTuning, StartRequest
from graft_server.domain.errors import (
    DomainError,
    IdleError,
    MissingError,
    OverloadError,
    StateError,
    StoreError,
)
from graft_server.domain.examples import Change, Example, Input
from graft_server.domain.model import ManifestRef
from graft_server.domain.report import Evaluation, EvaluationMethod, HeadChoice, Report
from graft_server.domain.stream import Accepted, Progress, Reconnect
from graft_server.erasing.deletion import Deletion
from graft_server.store.adaptations.listing import list_adaptations, list_all_adaptations, remove_adaptation
from graft_server.store.adaptations.segments import content_digest
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.objects.objects import ObjectMissingError, Objects
from graft_server.training.contract import Finished, Trained


@pytest.fixture
def stuck_tunings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tunings left cannot be looked for in the store, though all else works."""
    keys = Objects.keys

    def require_other(prefix: str) -> None:
        if prefix.startswith("tunings/"):
            raise StoreError("The store does not answer.", reason="STORE_UNAVAILABLE")

    def failing_keys(self: Objects, prefix: str) -> list[str]:
        require_other(prefix)
        return keys(self, prefix)

    monkeypatch.setattr(Objects, "keys", failing_keys)


def test_several_who_follow_the_catalogue_at_once_do_not_disturb_each_other(bench, monkeypatch):
    removing, proceed = threading.Event(), threading.Event()

    def held(objects: Objects, model: str, name: str) -> None:
        if model == "m0":
            removing.set()
            assert proceed.wait(60)
        remove_adaptation(objects, model, name)

    monkeypatch.setattr(adaptations, "remove_adaptation", held)

    async def scenario(it: Bench) -> None:
        for model in ("m0", "m1", "m2"):
            await it.join(model)
        it.delete("m0", "m1")
        first = asyncio.create_task(it.adaptations.follow())
        await asyncio.to_thread(removing.wait, 60)
        it.delete("m2")
        second = asyncio.create_task(it.adaptations.follow())
        await asyncio.sleep(0)  # until it has begun
        proceed.set()
        await asyncio.gather(first, second)
        assert not any(list_adaptations(it.objects, model) for model in ("m0", "m1", "m2"))

    bench(scenario)


def test_what_is_loaded_while_others_follow_the_catalogue_follows_it_in_the_next_round(bench, monkeypatch):
    removing, proceed = threading.Event(), threading.Event()

    def held(objects: Objects, model: str, name: str) -> None:
        removing.set()
        assert proceed.wait(60)
        remove_adaptation(objects, model, name)

    monkeypatch.setattr(adaptations, "remove_adaptation", held)

    async def scenario(it: Bench) -> None:
        await it.join("m0")
        it.delete("m0")
        following = asyncio.create_task(it.adaptations.follow())
        await asyncio.to_thread(removing.wait, 60)
        loaded, _ = await it.join("m1")
        proceed.set()
        await following
        await it.adaptations.follow()
        assert loaded.followed == it.catalogue.snapshot.entries

    bench(scenario)


def test_what_a_fault_of_the_store_cut_off_is_done_in_the_next_round_and_the_rest_at_once(bench, monkeypatch):
    fails = ["m0"]

    def failing(objects: Objects, model: str, name: str) -> None:
        if model in fails:
            raise StoreError("The store does not answer.", reason="STORE_UNAVAILABLE")
        remove_adaptation(objects, model, name)

    monkeypatch.setattr(adaptations, "remove_adaptation", failing)

    async def scenario(it: Bench) -> None:
        for model in ("m0", "m1"):
            await it.join(model)
        _, session = await it.join("m2")
        AdaptationStore.load(it.objects, "m2", "a").cancel()
        it.others.cancel_adaptation("m2", "a")
        it.delete("m0", "m1")

        with pytest.raises(StoreError, match="does not answer"):
            await it.adaptations.follow()
        assert list_adaptations(it.objects, "m0")
        assert not list_adaptations(it.objects, "m1")
        with pytest.raises(StateError) as raised:
            await session.next_message()
        assert raised.value.reason == "ADAPTATION_CANCELLED"
        await session.close()

        fails.clear()
        await it.adaptations.follow()
        assert not list_adaptations(it.objects, "m0")

    bench(scenario)


def test_stray_folders_in_the_store_do_not_keep_adaptations_from_being_taken_up(bench, tmp_path, caplog):
    strays = (
        "models/m0/_/adaptations/a@b",
        "models/m0/_/adaptations/lost+found",
        "models/UP/_/adaptations/a",
    )

    async def scenario(it: Bench) -> None:
        for stray in strays:
            it.objects.create(f"{stray}/start.json", b"{}")
        (tmp_path / "store" / "models" / os.fsdecode(b"\xff")).mkdir()
        adaptation = await it.start("m1")
        await it.adaptations.recover()
        assert list(list_all_adaptations(it.objects)) == [("m1", adaptation.store.name)]

    bench(scenario)
    for stray in ("a@b is the name of no adaptation", "models/UP is the name of no model"):
        assert stray in caplog.text


def test_an_adaptation_of_a_deleted_model_is_another_one_at_once(bench, monkeypatch):
    """Also while what is left of the old one cannot be removed."""

    def failing(*_: Any) -> None:
        raise StoreError("The store does not answer.", reason="STORE_UNAVAILABLE")

    monkeypatch.setattr(adaptations, "remove_adaptation", failing)

    async def scenario(it: Bench) -> None:
        old, _ = await it.join("m0")
        it.delete("m0")
        with pytest.raises(StoreError):
            await it.adaptations.follow()
        new, _ = await it.join("m0")
        assert new is not old
        assert new.store.name != old.store.name
        with pytest.raises(StoreError):
            await it.adaptations.follow()
        assert not new.closed
        assert await it.start("m0") is new

    bench(scenario)


def test_whatever_ends_an_adaptation_its_callers_hear_why(bench):
    async def scenario(it: Bench) -> None:
        for reason, expected in (
            (Reason.CANCELLED, "ADAPTATION_CANCELLED"),
            (Reason.DELETED, "MODEL_DELETED"),
            (Reason.DRAINING, "DRAINING"),
        ):
            adaptation, session = await it.join(f"m-{reason.name.lower()}")
            if reason is Reason.CANCELLED:
                AdaptationStore.load(it.objects, adaptation.store.model, "a").cancel()
            await adaptation.end(reason)
            if reason is Reason.DRAINING:
                assert await session.next_message() == Reconnect(0)
            with pytest.raises(DomainError) as raised:
                await session.next_message()
            assert raised.value.reason == expected
            assert adaptation.idle
            assert adaptation.closed is (reason is not Reason.CANCELLED)

    bench(scenario)


def test_a_cancelled_adaptation_gives_its_commits_an_outcome_and_carries_out_no_more(bench):
    async def scenario(it: Bench) -> None:
        adaptation, session = await it.join("m0")
        other = AdaptationStore.load(it.objects, "m0", "a")
        other.commit("c", {"w": 0})
        other.cancel()
        await adaptation.end(Reason.CANCELLED)
        failure = adaptation.store.outcomes["c"].failure
        assert failure is not None
        assert failure.reason == CANCELLED
        adaptation.resume()
        assert not adaptation.working
        await session.close()

    bench(scenario)


def test_what_has_ended_does_not_end_for_a_less_final_reason(bench):
    async def scenario(it: Bench) -> None:
        adaptation, _ = await it.join("m0")
        adaptation.store.commit("c", {"w": 0})
        await adaptation.end(Reason.DELETED)
        adaptation.store.cancel()
        for reason in (Reason.CANCELLED, Reason.DRAINING):
            await adaptation.end(reason)
        assert adaptation.closed
        assert "c" not in adaptation.store.outcomes, "nothing is written to what is being deleted"
        with pytest.raises(RuntimeError, match="does not go from DELETED to GOING_ON"):
            adaptation._turn(Work.GOING_ON)

    bench(scenario)


def test_commits_that_were_given_up_have_an_outcome_also_where_what_they_left_cannot_be_deleted(
    bench, stuck_tunings
):
    async def scenario(it: Bench) -> None:
        adaptation, session = await it.join("m0")
        other = AdaptationStore.load(it.objects, "m0", "a")
        other.commit("c", {"w": 0})
        other.cancel()
        await adaptation.end(Reason.CANCELLED)
        assert "c" in adaptation.store.outcomes
        await session.close()

    bench(scenario)


def test_a_tuning_is_not_lost_where_what_it_left_cannot_be_deleted(bench, stuck_tunings):
    async def scenario(it: Bench) -> None:
        adaptation = await it.start("m0")
        report = Report(
            examples=0,
            validation_examples=0,
            classes=0,
            accuracy=0.0,
            macro_f1=0.0,
            log_loss=0.0,
            calibration_error=0.0,
            evaluation=Evaluation(EvaluationMethod.NONE),
            head=HeadChoice("logistic", "pooled", {}, 1.0),
            per_class=(),
        )
        done = Trained(manifest=ManifestRef("manifest", "0" * 64), report=report)
        plan = Plan((), 6, FineTuning(), time_budget_s=0.0, auto=False)

        async def kept(_: str, better: Finished) -> Finished:
            return better

        made = await it.publisher.tuner.tune(
            adaptation.store,
            adaptation.trunk,
            "c",
            folder="tunings/m/0/c/",
            plan=plan,
            frozen=done,
            pace=Pace("c", lambda _: None),
            on_better=kept,
        )
        assert made is done

    bench(scenario)


def test_segments_are_put_together_again_after_whoever_asked_to_forget_examples_has_left(bench):
    async def scenario(it: Bench) -> None:
        adaptation, _ = await it.join("m0")
        finish = asyncio.Event()

        async def compacting() -> None:
            await finish.wait()
            adaptation._compacting = None

        adaptation._compacting = asyncio.create_task(compacting())
        forgetting = asyncio.create_task(adaptation.forget_erased())
        while adaptation._work is not Work.PAUSED:  # noqa: ASYNC110 - it says nothing when it pauses
            await asyncio.sleep(0)
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)
        assert adaptation._work is Work.GOING_ON
        finish.set()

    bench(scenario)


def test_what_another_server_has_just_erased_counts_where_a_job_fails_for_it(bench):
    async def scenario(it: Bench) -> None:
        read_at = it.catalogue.refresh().entries
        assert not await it.publisher.erased("m0", read_at)
        it.others.erase_examples("m0", {}, lambda _: False)
        assert await it.publisher.erased("m0", read_at)
        assert not await it.publisher.erased("m1", read_at)

    bench(scenario)


def test_what_builds_on_a_version_that_is_written_anew_meanwhile_is_made_again(bench):
    async def scenario(it: Bench) -> None:
        before = ManifestRef("models/m0/_/versions/1/manifest.json", "0" * 64)
        version = it.catalogue.publish(
            model="m0", adaptation_id="a", commit_id="c/frozen", manifest=before, summary={}
        )
        read_at = it.catalogue.refresh().entries
        part = ObjectMissingError("models/m0/_/versions/1/head.bin")

        async def repeated() -> bool:
            return await it.publisher._is_repeated(part, "m0", read_at, "tunings/m0/0/c/", set())

        assert not await repeated()
        assert it.others.redact(version, ManifestRef("models/m0/_/versions/2/manifest.json", "1" * 64))
        assert await repeated()

    bench(scenario)


def limited(it: Bench, **limits: Any) -> None:
    it.adaptations._limits = AdaptationLimits(**limits)


async def joined(it: Bench, model: str, writer: str = "w") -> Session:
    request = StartRequest(model, "a", writer, AdaptationSettings(""))
    return await it.adaptations.join(it.adaptations.check(request))


async def told(session: Session) -> list[Any]:
    """What a caller hears until its call ends, and how it ends."""
    heard: list[Any] = []
    try:
        while (message := await session.next_message()) is not None:
            heard.append(message)
    except DomainError as error:
        heard.append(error)
    return heard


def change(text: str) -> Incoming:
    return Incoming(content_digest(text.encode()), Change(Example(text, Input(text), "a")))


def test_the_limit_of_open_adaptations_holds_exactly_whoever_comes_at_once(bench):
    async def scenario(it: Bench) -> None:
        limited(it, open=3)
        found = await asyncio.gather(*(joined(it, f"m{n}") for n in range(12)), return_exceptions=True)
        assert sum(isinstance(one, Session) for one in found) == 3
        assert sum(isinstance(one, OverloadError) for one in found) == 9
        assert sum(one.attended for one in it.adaptations._open.values()) == 3

    bench(scenario)


def test_the_adaptation_that_is_idle_longest_makes_way_and_goes_on_where_it_was(bench):
    async def scenario(it: Bench) -> None:
        limited(it, open=2, idle_s=0.0)
        first, second = await joined(it, "m0"), await joined(it, "m1")
        for session in (first, second):
            await session.put(0, [change("one")])
            await session._stream.flush()
        third = await joined(it, "m2")
        acknowledged, reconnect, error = [one for one in await told(first) if not isinstance(one, Progress)]
        assert acknowledged == Accepted(1)
        assert reconnect == Reconnect(1)
        assert isinstance(error, IdleError)
        assert error.metadata["next_sequence"] == "1"
        again = await joined(it, "m0")
        assert again.next_sequence == 1
        assert isinstance((await told(second))[-1], IdleError)
        assert sum(one.attended for one in it.adaptations._open.values()) == 2
        for session in (first, second, third, again):
            await session.close()

    bench(scenario)


def test_work_in_progress_never_makes_way_nor_what_was_idle_for_a_moment(bench):
    async def scenario(it: Bench) -> None:
        limited(it, open=1, idle_s=0.0)
        busy = await joined(it, "m0")
        busy._open_commits.add("c")  # as while a commit is carried out
        with pytest.raises(OverloadError):
            await joined(it, "m1")
        busy.settle("c")
        limited(it, open=1, idle_s=600.0)
        with pytest.raises(OverloadError):
            await joined(it, "m1")
        limited(it, open=9, open_per_model=1, idle_s=0.0)
        request = StartRequest("m0", "another", "w", AdaptationSettings(""))
        await it.adaptations.join(it.adaptations.check(request))
        assert isinstance((await told(busy))[-1], IdleError)

    bench(scenario)


def test_the_limit_of_calls_holds_for_the_writers_of_one_adaptation(bench):
    async def scenario(it: Bench) -> None:
        limited(it, calls=3, idle_s=600.0)
        found = await asyncio.gather(*(joined(it, "m0", f"w{n}") for n in range(8)), return_exceptions=True)
        assert sum(isinstance(one, Session) for one in found) == 3
        refused = [one for one in found if isinstance(one, OverloadError)]
        assert [one.reason for one in refused] == ["TOO_MANY_CALLS"] * 5
        limited(it, calls=3, idle_s=0.0)
        await joined(it, "m0", "late")
        (adaptation,) = it.adaptations._open.values()
        assert adaptation.calls == 3

    bench(scenario)


def test_deletions_of_the_same_and_of_other_models_at_once_succeed_or_find_nothing(bench):
    async def scenario(it: Bench) -> None:
        models = ("m0", "m1", "m2")
        for model in models:
            await it.join(model)
        deletion = Deletion(it.objects, it.catalogue, lambda _: None, 0.0, it.publisher.jobs)
        ended = await asyncio.gather(
            *(deletion.model(model, stop=it.adaptations.follow) for model in models * 4),
            return_exceptions=True,
        )
        failures = [one for one in ended if one is not None]
        assert all(isinstance(one, MissingError) for one in failures), failures
        assert len(failures) <= len(ended) - len(models)
        for model in models:
            assert not list_adaptations(it.objects, model)
            with pytest.raises(MissingError):
                await deletion.model(model, stop=it.adaptations.follow)
        assert (await it.start("m0")).store.name != "a"  # what begins later is another one

    bench(scenario)
