"""Feeds a model from a NATS JetStream, for as long as messages come: pip install nats-py graft-serve.

    python examples/broker/consume.py --stream LABELS --model support/intents --publish-every 500

A message is JSON: {"text": …, "label": …}, with an "id" if it shall be corrected later, or {"delete": ID}.

The order of acknowledgements is the point: the broker is told that a message is done with only after Graft has
said that it is durable. So whatever dies in between, the broker sends the message again. That it is then not
learned twice is because its id is its place in the stream: an example whose id is known replaces it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator

import nats
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.client import JetStreamContext

import graft

FETCHED_AT_ONCE = 256
LOOK_S = 0.5
"""How long a fetch waits before it is seen whether the program shall end."""
UNACKNOWLEDGED = 4_096
"""Messages that may be under way at once: the broker holds others back."""


class Feed:
    """Messages on their way from the broker to Graft, and their acknowledgements on the way back."""

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self._subscription = subscription
        self._sent: deque[Msg] = deque()
        self._acknowledged = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.ending = asyncio.Event()

    async def changes(self) -> AsyncIterator[graft.Example | graft.Delete]:
        """What the messages say, one after the other, until the program shall end."""
        while not self.ending.is_set():
            try:
                messages = await self._subscription.fetch(FETCHED_AT_ONCE, timeout=LOOK_S)
            except TimeoutError:  # NATS' own is one, and its client lets plain ones through
                continue
            for message in messages:
                try:
                    change = change_of(message)
                except ValueError as error:
                    print(f"passed over: {error}", file=sys.stderr)
                    await message.term()  # it would not get better
                    continue
                self._sent.append(message)
                yield change

    def acknowledge(self, progress: graft.AdaptProgress) -> None:
        """Tells the broker of what Graft has said to be durable, or has refused for good."""
        while self._acknowledged < progress.acknowledged:
            self._acknowledged += 1
            task = asyncio.create_task(self._sent.popleft().ack())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Returns when the broker has been told everything."""
        await asyncio.gather(*self._tasks)


def change_of(message: Msg) -> graft.Example | graft.Delete:
    """What a message says; raises ValueError if that is nothing."""
    place = f"{message.metadata.stream}/{message.metadata.sequence.stream}"
    try:
        content = json.loads(message.data)
        if "delete" in content:
            return graft.Delete(str(content["delete"]))
        return graft.Example(content["text"], content["label"], id=str(content.get("id", place)))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"message {place} is not an example: {error!r}") from None


async def run(args: argparse.Namespace) -> None:
    """Feeds until a signal comes, then commits."""
    broker = await nats.connect(args.nats)
    subscription = await broker.jetstream().pull_subscribe(
        args.subject,
        durable=args.consumer,
        stream=args.stream,
        config=ConsumerConfig(ack_wait=args.ack_wait, max_ack_pending=UNACKNOWLEDGED),
    )
    feed = Feed(subscription)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, feed.ending.set)
    async with graft.AsyncClient(args.server, resume_timeout=args.patience) as client:
        result = await client.adapt(
            args.model,
            feed.changes(),
            adaptation_id=args.adaptation,
            writer_id=args.consumer,
            publish_every=args.publish_every,
            publish_seconds=args.publish_seconds,
            append=True,
            close=False,
            on_progress=feed.acknowledge,
            on_published=lambda it: print(f"version {it.version}" if it.version else it.error, flush=True),
        )
    await feed.settle()
    await broker.close()
    print(f"{result.model} version {result.version}: {result.report.examples} examples", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nats", default="nats://127.0.0.1:4222", help="the broker")
    parser.add_argument("--stream", required=True, help="the stream whose messages are examples")
    parser.add_argument("--subject", default="", help="only messages of this subject")
    parser.add_argument(
        "--consumer", default="graft", help="this consumer's name, for the broker and for Graft"
    )
    parser.add_argument("--server", default="127.0.0.1:50051", help="the Graft server")
    parser.add_argument("--model", required=True, help="the model to publish to")
    parser.add_argument("--adaptation", default="broker", help="the adaptation that stays open")
    parser.add_argument("--publish-every", type=int, default=500, help="publish after so many examples")
    parser.add_argument(
        "--publish-seconds", type=float, default=60.0, help="publish what is new after so long"
    )
    parser.add_argument(
        "--ack-wait",
        type=float,
        default=120.0,
        help="after how many seconds the broker sends again what was not acknowledged; a restart of the Graft server "
        "should fit in, or messages are sent twice for nothing",
    )
    parser.add_argument(
        "--patience", type=float, default=3600.0, help="how long the Graft server may be away, in s"
    )
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
