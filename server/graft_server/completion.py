"""The script by which a shell completes `graft-server`: `source <(graft-server completion bash)`."""

from __future__ import annotations

import argparse
from typing import Final

from graft_server.domain.errors import MissingError

SHELLS: Final = ("bash", "zsh", "fish")
_FILE: Final = "FILE"
_FOLDER: Final = "FOLDER"


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Returns the script.

    Args:
        parser: The grammar of the command line.
        shell: One of `SHELLS`.

    Raises:
        MissingError: The library that makes it is not installed.
    """
    try:
        import shtab  # noqa: PLC0415  (nothing else needs it)
    except ModuleNotFoundError:
        raise MissingError(
            "completion needs the package shtab: pip install 'graft-serve[server]'", reason="SHTAB_MISSING"
        ) from None
    (commands,) = (it for it in parser._actions if isinstance(it, argparse._SubParsersAction))  # noqa: SLF001
    for of_command in commands.choices.values():
        for action in of_command._actions:  # noqa: SLF001  (argparse has no other way to its arguments)
            if action.metavar == _FILE:
                action.complete = shtab.FILE
            elif action.metavar == _FOLDER:
                action.complete = shtab.DIRECTORY
            elif "|" in str(action.metavar):
                action.choices = str(action.metavar).split("|")
    return str(shtab.complete(parser, shell))
