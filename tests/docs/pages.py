"""Pages of the documentation whose blocks are run as they stand, and whose outputs are compared.

A block of `bash` is run by bash; a block of `text` right behind it is what it prints. A block of `python` is run in one
namespace with the others of its page. An HTML comment before a block says what a reader does not need to know:

    <!-- run: background -->          it stays until the page is done, and the page goes on once it says "listening on"
    <!-- run: exit=1 -->              it ends with this exit code
    <!-- run: keys="k,c,y" -->        it is run at a terminal, where these keys are pressed, each when it is asked for
    <!-- run: not, because … -->      it is not run
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*$")
_COMMENT: Final = re.compile(r"<!-- run: (?P<how>.*?) -->")
_QUESTION: Final = re.compile(r"(\?|:|>|\]|\[\w\]\w+) *$")
"""How what a command says ends where it waits for a key: also by the last choice, as in `[y]es, [n]o`."""
RUN: Final = frozenset({"bash", "python"})


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    language: str
    code: str
    line: int
    """Where it begins, from 1."""
    how: str = ""
    """How it is run, where that is said."""
    output: str | None = None
    """What it prints, where the page shows that."""

    @property
    def left_out(self) -> bool:
        """Whether it is not run."""
        return self.how.startswith("not, because ")

    def said(self, name: str) -> str | None:
        """The value of what is said by this name."""
        for word in shlex.split(self.how) if not self.left_out else ():
            key, _, value = word.partition("=")
            if key == name:
                return value
        return None


def blocks_of(text: str) -> list[Block]:
    """Returns the blocks of a page that are code, each with its output."""
    found: list[Block] = []
    lines = text.splitlines()
    number, how, adjacent = 0, "", False
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if not fence:
            if comment := _COMMENT.search(lines[number]):
                how = comment["how"]
            elif lines[number].strip():
                how, adjacent = "", False
            number += 1
            continue
        end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == "```")
        code = "\n".join(line.removeprefix(fence["indent"]) for line in lines[number + 1 : end])
        if fence["language"] == "text" and adjacent:
            last = found.pop()
            found.append(Block(last.language, last.code, last.line, last.how, code))
            adjacent = False
        elif fence["language"] != "text":
            found.append(Block(fence["language"], code, number + 1, how))
            adjacent = True
        number, how = end + 1, ""
    return found


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder and an environment of their own."""

    folder: Path
    environment: Mapping[str, str]
    longest_s: float = float(os.environ.get("GRAFT_CALL_TIMEOUT", "120"))
    """A block that hangs fails its test instead of all of them. Nothing is measured by it."""
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, block: Block) -> str:
        """Runs a block of bash and returns what it prints.

        Raises:
            AssertionError: It ends with another exit code than it should.
        """
        if block.said("background") is not None:
            return self._start(block)
        expected = int(block.said("exit") or 0)
        keys = block.said("keys")
        command = ["bash", "-euo", "pipefail", "-c", block.code]
        if keys is None:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.longest_s,
                check=False,
            )
            code, printed = done.returncode, done.stdout.decode()
        else:
            code, printed = self._typed(command, keys.split(","))
        assert code == expected, f"line {block.line}: exit code {code}, not {expected}\n{printed}"
        return printed

    def close(self) -> None:
        """Ends what runs in the background."""
        for process in reversed(self.running):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)

    def _start(self, block: Block) -> str:
        log = self.folder / f"background-{len(self.running)}.log"
        with log.open("wb") as out:
            code = block.code.strip().removesuffix("&")
            process = subprocess.Popen(
                ["bash", "-c", f"exec {code}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(process)
        until = time.monotonic() + self.longest_s
        while "listening on" not in (said := log.read_text()):
            assert process.poll() is None, f"line {block.line}: it ended\n{said}"
            assert time.monotonic() < until, f"line {block.line}: it does not listen\n{said}"
            time.sleep(0.05)
        return said

    def _typed(self, command: list[str], keys: list[str]) -> tuple[int, str]:
        """Runs a command at a terminal, and presses a key whenever it has fallen silent after a question."""
        ours, its = pty.openpty()
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, "TERM": "xterm", "COLUMNS": "100"},
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        printed, unread, until = b"", b"", time.monotonic() + self.longest_s
        while time.monotonic() < until:
            ready, _, _ = select.select([ours], [], [], 0.3)
            if ready:
                try:
                    more = os.read(ours, 65536)
                except OSError:  # the terminal is closed
                    break
                printed, unread = printed + more, unread + more
            elif keys and _QUESTION.search(plain(unread)):
                os.write(ours, f"{keys.pop(0)}\n".encode())
                unread = b""
        else:
            os.killpg(process.pid, signal.SIGKILL)
        os.close(ours)
        code = process.wait(timeout=self.longest_s)
        assert not keys, f"it did not ask for {keys}\n{plain(printed)}"
        return code, plain(printed)


def plain(printed: bytes) -> str:
    """What a terminal shows, without colors and movements."""
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][AB0]", b"", printed).decode(errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def masked(line: str) -> str:
    """A line without what differs between two runs: numbers, ids, times, and how wide columns are."""
    line = re.sub(r"\b[0-9a-f]{12,}\b", "ID", line)
    return " ".join(re.sub(r"\d[\d,.:]*\d|\d", "N", line).split())


def missing(expected: str, printed: str) -> Iterator[str]:
    """Yields the lines of an expected output that are not printed in this order; "…" stands for any lines."""
    rest = iter([masked(line) for line in printed.splitlines()])
    for line in expected.splitlines():
        wanted = masked(line)
        if wanted and wanted != "…" and not any(found == wanted for found in rest):
            yield line
            return
