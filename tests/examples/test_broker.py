"""The example that feeds from a broker: killed in the middle, it loses nothing and learns nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graft

nats = pytest.importorskip("nats", reason="nats-py is not installed")

BROKER = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin")
EXAMPLE = Path(__file__).parents[2] / "examples" / "broker" / "consume.py"
STREAM = "LABELS"

pytestmark = pytest.mark.skipif(
    BROKER is None, reason="there is no nats-server; 'apt-get install nats-server' has it"
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A NATS server with JetStream on a free port.

    It logs to a file: once a pipe that nobody reads is full, it would answer no more.
    """
    port_files = tmp_path / "ports"
    port_files.mkdir()
    arguments = ["--jetstream", "--store_dir", str(tmp_path / "nats"), "--addr", "127.0.0.1", "--port", "-1"]
    arguments += ["--ports_file_dir", str(port_files), "--log", str(tmp_path / "nats.log")]
    process = subprocess.Popen([str(BROKER), *arguments])
    try:
        while not (written := "".join(it.read_text() for it in port_files.glob("*.ports"))).endswith("}"):
            assert process.poll() is None
        yield json.loads(written)["nats"][0]
    finally:
        process.terminate()
        process.wait()


async def publish(broker: str, messages: list[dict[str, Any]]) -> None:
    async with await nats.connect(broker) as connection:
        stream = connection.jetstream()
        await stream.add_stream(name=STREAM, subjects=["labels"])
        for message in messages:
            await stream.publish("labels", json.dumps(message).encode())


async def consumed(broker: str, process: subprocess.Popen[str]) -> None:
    """Returns when the consumer has told the broker of every message."""
    async with await nats.connect(broker) as connection:
        while process.poll() is None:
            info = await connection.jetstream().consumer_info(STREAM, "graft")
            if not (info.num_pending or info.num_ack_pending):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"the consumer ended with {process.returncode}")


def consumer(broker: str, server: Any, model: str) -> subprocess.Popen[str]:
    arguments = ["--nats", broker, "--stream", STREAM, "--server", server.target, "--model", model]
    return subprocess.Popen(
        [
            sys.executable,
            str(EXAMPLE),
            *arguments,
            "--publish-every",
            "0",
            "--publish-seconds",
            "0",
            "--ack-wait",
            "3",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def stored(client: graft.Client, model: str) -> int:
    try:
        return sum(client.adaptation(model, "broker").writers.values())
    except graft.NotFoundError:
        return 0


@pytest.mark.slow
def test_a_consumer_that_is_killed_loses_nothing_and_learns_nothing_twice(
    broker: str, server: Any, model: str, intents: list[tuple[str, str]]
) -> None:
    rows = [(f"{text} ({turn})", label) for turn in range(4) for text, label in intents]
    messages = [{"text": text, "label": label} for text, label in rows]
    asyncio.run(publish(broker, messages))
    first = consumer(broker, server, model)
    with graft.Client(server.target) as client:
        while stored(client, model) < 200:
            assert first.poll() is None
        first.kill()
        first.communicate()
        second = consumer(broker, server, model)
        asyncio.run(consumed(broker, second))
        second.send_signal(signal.SIGTERM)
        out, _ = second.communicate(timeout=120)
        assert second.returncode == 0
        assert f"{model} version 1: {len(rows)} examples" in out
        assert client.version(model).report.examples == len(rows)
        assert client.adaptation(model, "broker").state == "open"


def test_corrections_and_deletions_come_through_the_broker(
    broker: str, server: Any, model: str, few: list[tuple[str, str]]
) -> None:
    messages = [{"id": str(n), "text": text, "label": label} for n, (text, label) in enumerate(few)]
    corrected = {"id": "0", "text": "the lock is stuck", "label": "door"}
    asyncio.run(publish(broker, [*messages, corrected, {"delete": "1"}, {"nonsense": True}]))
    process = consumer(broker, server, model)
    with graft.Client(server.target) as client:
        while stored(client, model) < len(few) + 2:
            assert process.poll() is None
        asyncio.run(consumed(broker, process))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        counts = {it.label: it.examples for it in client.version(model).report.per_class}
    assert counts == {"bill": 5, "door": 1, "lock": 5}
