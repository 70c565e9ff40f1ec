"""Pages as messages. A page ends early if its message would become too large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from graft_server.domain.paging import Listed, PageRequest

T = TypeVar("T")
M = TypeVar("M", bound=Message)

MAX_BYTES = 3 << 20
"""Of the entries of a page but the last; a message may have 4 MiB, and an entry is at most 1 MiB and a little."""

AT_ONCE = 32
"""Entries that are converted between two turns of the event loop: a model or a version takes 60 µs."""


class _Request(Protocol):
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


def page_request(message: _Request) -> PageRequest:
    """Returns the page that a request asks for."""
    return PageRequest(message.page_size, message.page_token)


async def page(entries: AsyncGenerator[Listed[T], None], convert: Callable[[T], M]) -> tuple[list[M], str]:
    """Returns the entries of a page as messages, and the token of the next page."""
    messages: list[M] = []
    size, token = 0, ""
    async with aclosing(entries):
        async for entry in entries:
            message = convert(entry.value)
            messages.append(message)
            size, token = size + message.ByteSize(), entry.next_token
            if size >= MAX_BYTES:
                break
            if len(messages) % AT_ONCE == 0:
                await asyncio.sleep(0)
    return messages, token
