"""The command line, from its parser."""

from __future__ import annotations

import argparse
from typing import Final

from scripts.references import markdown

from graft.cli import build_parser

_INTRODUCTION: Final = (
    "`pip install 'graft-serve[cli]'` installs the command `graft`. `graft COMMAND --help` shows the same as this "
    "page. Results go to standard output, everything else to standard error. The exit code is 0, 1 for an error, 2 for "
    "wrong usage, 130 for Ctrl-C."
)


def page() -> str:
    """The page."""
    parser = build_parser()
    verbs = next(it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
    named: dict[str, argparse.ArgumentParser] = verbs.choices
    summaries = {it.dest: it.help or "" for it in verbs._choices_actions}
    common = _common(list(named.values()))
    return markdown.joined(
        (
            "# The command line",
            markdown.GENERATED,
            _INTRODUCTION,
            markdown.table(
                ("command", "what it does"),
                ((f"[`graft {name}`](#graft-{name})", summaries.get(name, "")) for name in named),
            ),
            "## What all commands take",
            markdown.table(("option", "what it says"), (_row(it) for it in common.values())),
            *(_verb(name, sub, set(common)) for name, sub in named.items()),
        )
    )


def _common(parsers: list[argparse.ArgumentParser]) -> dict[str, argparse.Action]:
    """The options that every verb has, by their names."""
    options = [{_name(it): it for it in parser._actions if it.option_strings} for parser in parsers]
    return {name: it for name, it in options[0].items() if all(name in each for each in options)}


def _verb(name: str, parser: argparse.ArgumentParser, common: set[str]) -> str:
    groups = []
    for group in parser._action_groups:
        shown = [
            it for it in group._group_actions if _name(it) not in common and it.help != argparse.SUPPRESS
        ]
        title = "" if group.title in {"positional arguments", "options"} else f"**{group.title}**"
        groups += [title if shown else "", markdown.table(("argument", "what it says"), map(_row, shown))]
    examples = f"```text\n{parser.epilog.strip()}\n```" if parser.epilog else ""
    return markdown.joined((f"## graft {name}", parser.description or "", *groups, examples))


def _name(action: argparse.Action) -> str:
    return ", ".join(action.option_strings) or str(action.metavar or action.dest)


def _row(action: argparse.Action) -> tuple[str, str]:
    value = ""
    if action.option_strings and action.nargs != 0:
        choices = action.choices and "{" + ",".join(map(str, action.choices)) + "}"
        value = f" {action.metavar or choices or action.dest.upper()}"
    return f"`{_name(action)}{value}`", (action.help or "").replace("%%", "%")
