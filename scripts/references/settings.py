"""The server's settings, from their declarations, and the commands of `graft-server`."""

from __future__ import annotations

import argparse
from typing import Final

from scripts.references import markdown

from graft_server.cli import build_parser
from graft_server.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting

_SOURCES: Final = (
    f"Each setting is a flag of `graft-server serve`, an environment variable ({ENVIRONMENT_PREFIX}…) and a key of "
    "a TOML file that `--config FILE` names. Flags win over variables, and variables win over the file."
)


def page() -> str:
    """The page."""
    parser = build_parser()
    commands = next(it for it in parser._actions if isinstance(it, argparse._SubParsersAction))
    return markdown.joined(
        (
            "# The server's settings",
            markdown.GENERATED,
            _SOURCES,
            markdown.table(("flag", "variable", "default", "what it says"), map(_row, SETTINGS.values())),
            "## Commands",
            markdown.table(
                ("command", "what it does"),
                ((f"`graft-server {it.dest}`", it.help or "") for it in commands._choices_actions),
            ),
        )
    )


def _row(setting: Setting) -> tuple[str, str, str, str]:
    default = setting.default
    if setting.name == "backbones":
        default = ", ".join(f"{name}={source}" for name, source in default.items())
    elif setting.name == "cache":
        default = "~/.cache/graft"
    shown = f"`{default}`" if default != "" else "none"
    return f"`--{setting.flag}`", f"`{ENVIRONMENT_PREFIX}{setting.key.upper()}`", shown, setting.help
