"""What an adaptation's exchange holds, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024
BATCH_EXAMPLES: Final = 256
BATCH_BYTES: Final = MIB
BATCH_WAIT_S: Final = 0.05
"""How long an example waits for others to travel with."""
SILENCE_S: Final = 60.0
"""Servers send something every 20 s: when three in a row are missing, nobody is there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of memory and of waiting."""

    window_examples: int = 8192
    """Examples held until they are acknowledged; more wait."""
    window_bytes: int = 16 * MIB
    """The same in bytes; a single larger example is let through alone."""
    connect_timeout_s: float = 20.0
    """How long a first answer of the server is waited for."""
    resume_timeout_s: float = 300.0
    """How long the server may owe an acknowledgement, over any number of calls."""
    silence_s: float = SILENCE_S
    """How long a call may be without any message before another one is opened."""
