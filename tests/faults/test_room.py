"""A store that runs full, or that the server may not write any more, while it serves: what is said, and what goes on.

Full is a small file system of the test's own where it may mount one, and a limit on the size of files everywhere.
Without permission is a folder of mode 0, of which the capabilities that would pass over that are taken away.
"""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.conftest import start_server
from tests.faults.processes import workers

import graft
from graft.v1 import model_pb2

SOUND, MODEL = "tests/sound", "tests/m"
WRITER = f"models/{MODEL}/_/adaptations/a/writers/default/"
DISK_BYTES = 16 << 20

Without = Callable[[Any], AbstractContextManager[None]]
"""What a server lacks for as long as a block runs."""


@contextmanager
def over_quota(server: Any) -> Iterator[None]:
    """No file of the server's or its workers' may have a byte."""
    with no_byte_for(server.process.pid, *workers(server)):
        yield


@contextmanager
def no_byte_for(*pids: int) -> Iterator[None]:
    """No file that the processes write may have a byte."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, most) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
    yield
    for pid, limits in before.items():
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def disk_full(server: Any) -> Iterator[None]:
    """The file system that the store is on has no byte left."""
    filler = server.store.parent / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.writelines(itertools.repeat(bytes(4096)))
    yield
    filler.unlink()


@contextmanager
def forbidden(server: Any) -> Iterator[None]:
    """The server may not enter the folder of the model that the stream is for."""
    folder = server.store / "models" / MODEL
    mode = folder.stat().st_mode
    folder.chmod(0)
    yield
    folder.chmod(mode)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "graft-test", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, check=False, capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("a file system cannot be mounted here; the limit on the size of files is tested instead")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["quota", "disk"])
def full(request: pytest.FixtureRequest, serve: Any, tmp_path: Path) -> tuple[Any, Without]:
    """A server, and what makes its store full."""
    if request.param == "quota":
        return serve(store=tmp_path / "store"), over_quota
    return serve(store=request.getfixturevalue("small_disk") / "store"), disk_full


@pytest.fixture
def obeying(tmp_path: Path, encoder_cache: Path) -> Iterator[Any]:
    """A server that file modes hold for, also where the tests are run by root."""
    within: list[str] = []
    if os.geteuid() == 0:
        within = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root's capabilities cannot be given up here, and file modes do not hold for it")
    server = start_server(tmp_path / "store", "--cache", str(encoder_cache), within=within)
    yield server
    if server.process.poll() is None:
        server.kill()


def begun(wire: Any, few: list[tuple[str, str]]) -> Any:
    """A stream whose first rows are acknowledged, beside a model that is served."""
    wire.publish(SOUND, few)
    call = wire.adapt(model=MODEL, adaptation_id="a")
    call.examples(0, few)
    call.accepted(len(few))
    return call


def says(failure: Any, code: grpc.StatusCode, reason: str, folder: str) -> None:
    """The failure has the code and the reason, and names an object in the folder."""
    assert (failure.code, failure.reason) == (code, reason)
    assert failure.metadata["object"].startswith(folder)


def goes_on(wire: Any, few: list[tuple[str, str]]) -> None:
    """Resumes where the acknowledgements were, and publishes all."""
    call = wire.adapt(model=MODEL, adaptation_id="a")
    assert call.next("started").next_sequence == len(few)
    call.examples(len(few), [(f"{text} once more", label) for text, label in few])
    call.accepted(2 * len(few))
    call.commit(close=True)
    assert call.next("published").summary.examples == 2 * len(few)
    assert wire.predict(MODEL, [few[0][0]]).results[0].single_label.scores[0].label == few[0][1]


def test_a_full_store_is_named_and_the_stream_goes_on_once_there_is_room(full, connect, few):
    server, without = full
    wire = connect(server)
    call = begun(wire, few)
    with without(server):
        call.examples(len(few), [("never acknowledged", "lock")])
        failure = call.failure()
        says(failure, grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", WRITER)
        assert failure.metadata["object"] in failure.message
        assert "free or add some" in failure.message
        assert failure.retry_s
        moved = model_pb2.SetAliasRequest(model=SOUND, alias="stable", version=1)
        failure = wire.fails(wire.model.SetAlias, moved)
        says(failure, grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", "catalogue/")
        assert wire.predict(SOUND, ["the lock"]).version == 1
    goes_on(wire, few)
    assert server.stop() == 0


def test_a_commit_that_a_full_store_kept_from_being_published_is_made_again(full, connect, few):
    server, without = full
    wire = connect(server)
    call = begun(wire, few)
    call.commit("first")
    call.next("published")
    more = wire.adapt(model=MODEL, adaptation_id="a")
    more.examples(len(few), [("one more lock", "lock")])
    more.accepted(len(few) + 1)
    with without(server):
        more.commit("second")
        assert more.failure().reason == "STORE_FULL"
    again = wire.adapt(model=MODEL, adaptation_id="a")
    again.commit("second")
    published = again.next("published")
    assert (published.version, published.summary.examples) == (2, len(few) + 1)


def test_a_publication_that_finds_the_store_full_fails_with_the_reason_and_the_next_one_succeeds(
    serve, connect, few
):
    server = serve()
    wire = connect(server)
    call = begun(wire, few)
    with no_byte_for(*workers(server)):
        call.commit("first")
        failed = call.next("publication_failed")
        failure = wire.failure(failed.status)
        says(failure, grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", f"models/{MODEL}/_/versions/")
    call.commit("second", close=True)
    assert call.next("published").version == 1


def test_the_client_waits_for_room_and_its_caller_notices_nothing(full, connect, few):
    server, without = full
    connect(server).publish(SOUND, few)
    room, trouble, acknowledged = threading.Event(), threading.Event(), threading.Event()
    results: list[graft.AdaptResult] = []

    def rows() -> Iterator[tuple[str, str]]:
        yield from few
        room.wait()
        yield from ((f"{text} once more", label) for text, label in few)

    def told(progress: graft.AdaptProgress) -> None:
        if progress.acknowledged >= len(few):
            acknowledged.set()
        if progress.trouble is not None and "no space left" in str(progress.trouble):
            trouble.set()

    def adapt() -> None:
        with graft.Client(server.target) as client:
            results.append(client.adapt(MODEL, rows(), adaptation_id="a", on_progress=told))

    caller = threading.Thread(target=adapt)
    caller.start()
    assert acknowledged.wait(60)
    with without(server):
        room.set()
        assert trouble.wait(60)
        assert connect(server).predict(SOUND, ["the lock"]).version == 1
    caller.join()
    (result,) = results
    assert (result.report.examples, result.rejected) == (2 * len(few), ())


def test_lost_permission_is_named_and_the_stream_goes_on_once_it_is_granted(obeying, connect, few):
    wire = connect(obeying)
    call = begun(wire, few)
    with forbidden(obeying):
        call.examples(len(few), [("never acknowledged", "lock")])
        failure = call.failure()
        says(failure, grpc.StatusCode.UNAVAILABLE, "STORE_FORBIDDEN", WRITER)
        assert failure.metadata["object"] in failure.message
        assert "grant it reading and writing" in failure.message
        listed = model_pb2.ListExamplesRequest(model=MODEL)
        assert wire.fails(wire.model.ListExamples, listed).reason == "STORE_FORBIDDEN"
        assert wire.predict(SOUND, ["the lock"]).version == 1
        # Nor does it keep another model from being published.
        assert wire.publish(SOUND, [*few, ("one more bill", "bill")]).version == 2
    goes_on(wire, few)
    assert obeying.stop() == 0
