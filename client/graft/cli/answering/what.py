"""What the arguments of `graft predict` are: texts, the names of pictures and clips, or a file of inputs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from graft._data_files.answers.asked import ending_of
from graft._data_files.columns import DataError

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_MOST_WORDS: Final = 3
"""What has more words is no file's name, unless there is such a file."""
_LONGEST_NAME: Final = 1_024
_TABLE_OPTIONS: Final = ("input", "path", "second", "columns", "sheet", "delimiter", "quote", "format")

Kind = Literal["texts", "media", "table", "lines"]


@dataclass(frozen=True, slots=True)
class Given:
    """What the arguments are."""

    kind: Kind
    """ "texts", or the names of "media"; or one file that is a "table" or whose "lines" are texts."""
    path: str = ""
    """The file."""


def given(args: argparse.Namespace, terminal: Terminal) -> Given:
    """Says what the arguments are, and asks where that is in doubt and somebody can answer.

    Raises:
        DataError: It is in doubt, and nobody can answer.
    """
    names: list[str] = args.text
    if args.text_only or args.pairs:
        _require_no_file(args)
        return Given("texts")
    if args.files:
        return Given("media")
    table = any(getattr(args, it) for it in _TABLE_OPTIONS)
    if names == ["-"]:
        return Given("table" if table else "lines", "-")
    if len(names) == 1:
        return _one(args, terminal, names[0], table=table)
    _require_no_file(args)
    if all(ending_of(it) == "media" and _exists(it) for it in names):
        return Given("media")
    if files := [it for it in names if _looks_like_a_file(it)]:
        raise DataError(
            f"{files[0]} looks like a file, and there are {len(names):,} arguments: give one file of inputs alone, "
            "--files if all are names of pictures or clips, or --text if all are texts"
        )
    return Given("texts")


def _one(args: argparse.Namespace, terminal: Terminal, name: str, *, table: bool) -> Given:
    asked_for = table or args.output is not None or bool(args.output_format)
    if _exists(name):
        kind = "table" if _is_folder(name) else ending_of(name)
        if kind == "media":
            _require_no_file(args)
            return Given("media")
        if kind == "lines" and not table:
            return Given("lines", name)
        if kind or asked_for:
            return Given("table", name)
        answer = terminal.ask(f"There is a file {name}. Answer what it holds, in place of its name? [y/N] ")
        if _is_yes(answer):
            return Given("table", name)
        if answer is None:
            terminal.note(
                f"there is a file {name}; to answer what it holds, name the column of its texts with --input"
            )
        return Given("texts")
    if asked_for:
        raise DataError(
            f"{name}: there is no such file; a text by itself has no --output, --input or the like"
        )
    if _looks_like_a_file(name):
        found = f"there is no file {name}"
        if not _yes(terminal, f"{found[0].upper()}{found[1:]}. Classify these words themselves?"):
            raise DataError(f"{found}; if it is a text to classify, say --text")
    return Given("texts")


def _yes(terminal: Terminal, question: str) -> bool:
    return _is_yes(terminal.ask(f"{question} [y/N] "))


def _is_yes(answer: str | None) -> bool:
    return (answer or "").lower() in ("y", "yes")


def _looks_like_a_file(name: str) -> bool:
    if "\n" in name or len(name) > _LONGEST_NAME or not ending_of(name):
        return False
    return len(name.split()) <= _MOST_WORDS or _exists(name)


def _exists(name: str) -> bool:
    try:
        return len(name) <= _LONGEST_NAME and bool(name.strip()) and Path(name).exists()
    except (OSError, ValueError):
        return False


def _is_folder(name: str) -> bool:
    return Path(name).is_dir()


def _require_no_file(args: argparse.Namespace) -> None:
    """Refuses options of files where there is none."""
    options = {**dict.fromkeys(_TABLE_OPTIONS), "output": None, "output_format": None}
    if found := [f"--{it.replace('_', '-')}" for it in options if getattr(args, it)]:
        raise DataError(
            f"{', '.join(found)} cannot be given with texts or names of pictures: give a file of inputs"
        )
