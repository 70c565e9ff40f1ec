"""`graft completion`: print the script by which a shell completes the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft.cli.arguments import Verbs, add_verb

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

_EXAMPLES: Final = """\
examples:
  source <(graft completion bash)         # in ~/.bashrc
  source <(graft completion zsh)          # in ~/.zshrc, behind compinit
  graft completion fish | source          # in ~/.config/fish/config.fish

Commands, options, choices and names of files are completed without a server, and names of models by the server that
GRAFT_SERVER names, if it answers within a second. 'graft-server completion bash' is for graft-server.
"""
_SHELLS: Final = ("bash", "zsh", "fish")
_FILES: Final = frozenset({"DATA", "FILE", "TEXT"})
_WORD: Final = re.compile(r"[\w.,-]+")
_MODELS: Final = "graft --timeout 1 models 2>/dev/null </dev/null | sed -e 1d -e 's/ .*//'"
"""Names the models, one a line."""
_MODEL_NAMES: Final = {
    "bash": "_graft_models",
    "zsh": "_graft_models",
    "fish": "(_graft_models)",
    "preamble": {
        "bash": f'_graft_models() {{\n  compgen -W "$({_MODELS})" -- "$1"\n}}',
        "zsh": f'_graft_models() {{\n  compadd -- ${{(f)"$({_MODELS})"}}\n}}',
        "fish": f"function _graft_models\n  {_MODELS}\nend",
    },
}


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs,
        "completion",
        "print a script by which a shell completes graft's commands and options",
        _EXAMPLES,
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=f"the shell: {', '.join(_SHELLS)}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _: Client, terminal: Terminal) -> None:
    """Prints the script."""
    try:
        import shtab  # noqa: PLC0415  (only this verb needs it)
    except ModuleNotFoundError:
        raise DataError("completion needs the package shtab: pip install 'graft-serve[cli]'") from None
    parser = args.grammar()
    for action in _actions(parser):
        if action.metavar == "MODEL":
            action.complete = _MODEL_NAMES  # type: ignore[attr-defined]
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.choices is not None:
            # Quotes among choices would end those of the script.
            action.choices = [it for it in action.choices if _WORD.fullmatch(str(it))]
    terminal.line(shtab.complete(parser, args.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001  (argparse has no other way to its arguments)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for of_verb in action.choices.values():
                yield from _actions(of_verb)
        else:
            yield action
