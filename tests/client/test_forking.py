"""Processes that fork while a client is connected: the child is refused at once, and the parent goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from graft.v1 import model_pb2

PRELUDE = """
import asyncio, gc, multiprocessing, os, sys, threading, warnings
import graft

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what is looked at
target = sys.argv[1]

def in_child(work):
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        try:
            told = str(work())
        except BaseException as error:
            told = f"{type(error).__name__} {getattr(error, 'reason', error)}"
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        print(answer.read())
    os.waitpid(child, 0)

def answered(client):
    return client.health()
"""

IN_A_CALL = """
client = graft.Client(target)
answered(client)
waiting = threading.Thread(target=lambda: print("parent", client.model("waits").name))
waiting.start()
client.model("reached")  # answered once the other call has come
"""

SCRIPTS = {
    "blocking": IN_A_CALL
    + """
in_child(lambda: client.health())
in_child(lambda: list(client.predict_stream("m", ["a"])))
in_child(lambda: client.adapt("m", [("a", "b")]))
in_child(lambda: graft.Client(target).health())
in_child(lambda: asyncio.run(graft.AsyncClient(target).health()))
print("parent", client.health())
client.model("released")
waiting.join()
""",
    "leaves": IN_A_CALL
    + """
def leave():
    global client
    with client:
        pass
    client.close()
    client = None
    gc.collect()
    return "left"

in_child(leave)
print("parent", client.health())
client.model("released")
waiting.join()
""",
    "multiprocessing": IN_A_CALL
    + """
def ask(_):
    try:
        return client.health()
    except graft.GraftError as error:
        return error.reason

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(ask, range(4)))
print("parent", client.health())
client.model("released")
waiting.join()
""",
    "asynchronous": """
async def main():
    async with graft.AsyncClient(target) as client:
        waiting = asyncio.ensure_future(client.model("waits"))
        await client.model("reached")
        def ask():
            return asyncio.new_event_loop().run_until_complete(client.health())
        def renew():
            return asyncio.new_event_loop().run_until_complete(graft.AsyncClient(target).health())
        for work in (ask, renew, lambda: graft.Client(target).health()):
            in_child(work)
        print("parent", await client.health())
        await client.model("released")
        print("parent", (await waiting).name)

asyncio.run(main())
""",
    "closed": """
with graft.Client(target) as client:
    answered(client)
in_child(lambda: graft.Client(target).health())
unused = graft.Client(target)
in_child(lambda: unused.health())
print("parent", unused.health())
""",
}
TOLD = {
    "blocking": ["FailedPreconditionError FORKED"] * 5 + ["parent serving", "parent waits"],
    "leaves": ["left", "parent serving", "parent waits"],
    "multiprocessing": ["FORKED FORKED FORKED FORKED", "parent serving", "parent waits"],
    "asynchronous": ["FailedPreconditionError FORKED"] * 3 + ["parent serving", "parent waits"],
    "closed": ["serving", "serving", "parent serving"],
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server whose call "waits" is answered after "released"; "reached" is answered once it has come."""
    server = grpc.server(ThreadPoolExecutor(16), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


class Handler(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._reached, self._released = threading.Semaphore(0), threading.Semaphore(0)

    def service(self, details: Any) -> Any:
        if details.method.endswith("/Check"):
            return grpc.unary_unary_rpc_method_handler(lambda _, __: b"\x08\x01")
        return grpc.unary_unary_rpc_method_handler(
            self._model, model_pb2.GetModelRequest.FromString, model_pb2.GetModelResponse.SerializeToString
        )

    def _model(self, request: Any, _: Any) -> Any:
        if request.model == "waits":
            self._reached.release()
            self._released.acquire()
        elif request.model == "reached":
            self._reached.acquire()
        else:
            self._released.release()
        return model_pb2.GetModelResponse(model=model_pb2.Model(name=request.model))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_forked_child_is_refused_and_its_parent_goes_on(target: str, script: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + SCRIPTS[script], target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == TOLD[script], ended.stderr
    assert "Traceback" not in ended.stderr
